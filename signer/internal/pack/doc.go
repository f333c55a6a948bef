// Package pack builds, pushes and reads packages: OCI artifacts that nodes
// install by digest.
//
// Build turns a folder with a package.yaml into an OCI image layout. It is
// reproducible: the same files give the same digest on any machine, because
// nothing of the machine gets in (entries are sorted, times are zero or
// SOURCE_DATE_EPOCH, owners are 0, modes are 0755 or 0644) and because the
// compressors are those that go.mod pins, at a fixed level, on one thread. A
// golden digest in the tests tells when an update of a compressor would change that.
//
// Push sends a layout to a registry, Inspect reads either, Pin writes the
// digest into a fleet repo.
//
// # Format
//
// One manifest per platform, artifactType application/vnd.gpuaas.package.v1, with
// one tar layer and a config blob (Config) of its own media type. Several
// platforms are behind an image index. Layers carry the media types of the OCI
// image specification (application/vnd.oci.image.layer.v1.tar+gzip, tar+zstd)
// and not ones of our own: what makes this a package is the artifactType,
// and tools that know nothing of us can then still show, copy and unpack a
// layer (crane export; skopeo copy; oras pull, which takes the file's name from the
// title annotation). To mirror a package of several platforms use crane or oras:
// skopeo 1.9 writes an index anew, and that changes the digest.
package pack
