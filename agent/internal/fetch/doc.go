// Package fetch brings packages from OCI registries into a folder of verified
// blobs, by digest only.
//
// Parties: Fetcher, in the agent, answers from the folder what is there, and
// otherwise starts a child process (the hidden command "package-fetch") that
// downloads; RunChild is that command. Registries are not trusted: nothing
// counts before its SHA-256 is the one that signed state names, and every
// answer is capped.
//
// Flow: manifest or index by digest -> the node's platform -> config and
// layers. A blob is written to <hex>.partial, hashed on the way, fsynced and
// renamed to blobs/sha256/<hex>; a partial one is resumed with a Range request
// after its beginning has been hashed again. What the folder holds under its
// final name was verified when it came; afterwards its size is looked at and,
// for manifests and configs, its hash. Who reads a layer hashes it again in
// passing (store does), and calls Discard if it is damaged.
//
// Specifications: OCI image and distribution 1.1. An image index may hold one
// manifest per platform; nested indexes, Docker's own media types and digests
// other than sha256 are refused.
package fetch
