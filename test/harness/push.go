package harness

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
)

// Descriptor is OCI's: what a manifest or an index says of a blob.
type Descriptor struct {
	MediaType string            `json:"mediaType"`
	Digest    string            `json:"digest"`
	Size      int64             `json:"size"`
	Platform  map[string]string `json:"platform,omitempty"`
}

// PutBlob uploads a blob as it is and returns its descriptor.
func (r *Registry) PutBlob(tb testing.TB, repo, mediaType string, data []byte) Descriptor {
	tb.Helper()
	d := describe(mediaType, data)
	resp := r.do(tb, http.MethodPost, "http://"+r.Host+"/v2/"+repo+"/blobs/uploads/", "", nil, http.StatusAccepted)
	location, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		tb.Fatal(err)
	}
	q := location.Query()
	q.Set("digest", d.Digest)
	location.RawQuery = q.Encode()
	r.do(tb, http.MethodPut, location.String(), "application/octet-stream", data, http.StatusCreated)
	return d
}

// PutManifest uploads a manifest or index under a tag, or by its digest if tag
// is "". body is bytes as they are, or anything to encode as JSON.
func (r *Registry) PutManifest(tb testing.TB, repo, tag, mediaType string, body any) Descriptor {
	tb.Helper()
	data, ok := body.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(body); err != nil {
			tb.Fatal(err)
		}
	}
	d := describe(mediaType, data)
	if tag == "" {
		tag = d.Digest
	}
	r.do(tb, http.MethodPut, "http://"+r.Host+"/v2/"+repo+"/manifests/"+tag, mediaType, data, http.StatusCreated)
	return d
}

func describe(mediaType string, data []byte) Descriptor {
	sum := sha256.Sum256(data)
	return Descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(data))}
}

func (r *Registry) do(tb testing.TB, method, url, contentType string, body []byte, want int) *http.Response {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if r.opts.User != "" {
		req.SetBasicAuth(r.opts.User, r.opts.Password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return resp
}
