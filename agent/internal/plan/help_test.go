package plan_test

import (
	"crypto/sha256"
	"encoding/hex"
)

func digest(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}
