package fetch

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

const maxAuthFile = 1 << 20

// credentials looks a repository up in a Docker config.json, credential
// helpers included: first the whole "host/path", then each parent of it, then
// the host. Without a file, or an entry, requests carry none.
func credentials(file string, repo name.Repository) (authn.Authenticator, error) {
	if file == "" {
		return authn.Anonymous, nil
	}
	data, err := readAuthFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read registry credentials: %w", err)
	}
	parsed, err := config.LoadFromReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("cannot read registry credentials from %s: %w", file, err)
	}
	for _, key := range authKeys(repo) {
		found, err := parsed.GetAuthConfig(key)
		if err != nil {
			return nil, fmt.Errorf("cannot get registry credentials for %s with %s: %w", key, file, err)
		}
		found.ServerAddress = ""
		if found == (types.AuthConfig{}) {
			continue
		}
		return authn.FromConfig(authn.AuthConfig{
			Username: found.Username, Password: found.Password, Auth: found.Auth,
			IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
		}), nil
	}
	return authn.Anonymous, nil
}

func authKeys(repo name.Repository) []string {
	var keys []string
	for key := repo.Name(); ; {
		keys = append(keys, key)
		i := strings.LastIndexByte(key, '/')
		if i < 0 {
			break
		}
		key = key[:i]
	}
	if repo.RegistryStr() == name.DefaultRegistry {
		keys = append(keys, authn.DefaultAuthKey)
	}
	return keys
}

func readAuthFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxAuthFile+1))
	if err == nil && len(data) > maxAuthFile {
		err = fmt.Errorf("%s is larger than %d bytes", file, maxAuthFile)
	}
	return data, err
}
