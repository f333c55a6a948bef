//go:build !pkcs11 || !cgo

package keys_test

import (
	"testing"

	"github.com/gpuaas/node-agent/signer/internal/keys"
)

func TestTokensNeedATag(t *testing.T) {
	const uri = "pkcs11:object=fleet?module-path=/usr/lib/softhsm/libsofthsm2.so"
	_, err := keys.Open(t.Context(), uri, keys.Options{})
	says(t, err, "-tags pkcs11")
	_, err = keys.Public(t.Context(), uri, keys.Options{})
	says(t, err, "-tags pkcs11")
}
