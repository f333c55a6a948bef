package pkcs11_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/signer/internal/keys/internal/pkcs11"
)

func module(path string) func(string) string {
	return func(name string) string {
		if name == "PKCS11_MODULE_PATH" {
			return path
		}
		return ""
	}
}

func TestParse(t *testing.T) {
	cases := []struct {
		uri  string
		want pkcs11.Config
	}{
		{"pkcs11:object=fleet", pkcs11.Config{Object: "fleet", Module: "/m.so"}},
		{"pkcs11:token=The%20Software%20PKCS%2311;object=my%2Dkey;type=private", pkcs11.Config{Token: "The Software PKCS#11", Object: "my-key", Module: "/m.so"}},
		{"pkcs11:id=%01%ff;slot-id=0", pkcs11.Config{ID: []byte{1, 0xff}, HasSlot: true, Module: "/m.so"}},
		{"pkcs11:manufacturer=Snake%20Oil,%20Inc.;model=1;serial=DECC0DE;object=a+b", pkcs11.Config{Manufacturer: "Snake Oil, Inc.", Model: "1", Serial: "DECC0DE", Object: "a+b", Module: "/m.so"}},
		{"pkcs11:object=a?module-path=/x.so&pin-source=file:/run/pin", pkcs11.Config{Object: "a", Module: "/x.so", PINSource: "/run/pin"}},
		{"pkcs11:object=a?pin-source=file:///run/pin", pkcs11.Config{Object: "a", Module: "/m.so", PINSource: "/run/pin"}},
		{"pkcs11:object=a?pin-source=/run/pin", pkcs11.Config{Object: "a", Module: "/m.so", PINSource: "/run/pin"}},
	}
	for _, c := range cases {
		got, err := pkcs11.Parse(c.uri, module("/m.so"))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v; want %+v", c.uri, got, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	cases := []struct{ uri, want string }{
		{"pkcs11:", "names no key"},
		{"pkcs11:token=a", "names no key"},
		{"pkcs11:object=a;object=b", "object twice"},
		{"pkcs11:object=a;label=b", "allowed are token"},
		{"pkcs11:object=a;type=public", "allowed is private"},
		{"pkcs11:object=a;slot-id=-1", "whole number"},
		{"pkcs11:object=", "value of object"},
		{"pkcs11:object=%zz", "value of object"},
		{"pkcs11:object", "has no ="},
		{"pkcs11:object=a;", "has no ="},
		{"pkcs11:object=a?pin-value=123456", "holds a PIN"},
		{"pkcs11:object=a?123456", "has no ="},
		{"pkcs11:object=a?pin-source=%7Cprogram", "absolute path"},
		{"pkcs11:object=a?module-name=softhsm2", "module-path and pin-source"},
		{"pkcs11:object=a?module-path=m.so", "absolute path"},
	}
	for _, c := range cases {
		_, err := pkcs11.Parse(c.uri, module("/m.so"))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "123456") {
			t.Errorf("%s: got %v, want %q and no PIN", c.uri, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"pkcs11:object=a", "pkcs11:token=%20;id=%01?module-path=/m&pin-source=file:/p", "pkcs11:;=?&="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		c, err := pkcs11.Parse(uri, module(""))
		if err == nil && (c.Object == "" && len(c.ID) == 0 || !strings.HasPrefix(c.Module, "/")) {
			t.Errorf("%q gives %+v", uri, c)
		}
	})
}
