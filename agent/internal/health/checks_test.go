package health_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/health"
)

func TestHTTP(t *testing.T) {
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(elsewhere.Close)
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "database \x1b[31mis gone\nsecond line", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) })
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	n := health.NewNetwork()
	for path, words := range map[string]string{
		"/ok": "", "/empty": "", "/here": "", "/endless": "",
		"/bad": "answered 503 Service Unavailable: database [31mis gone", "/none": "answered 404",
		"/away": "redirect to another host", "/round": "redirects", "/slow": "deadline exceeded",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := n.HTTP(ctx, server.URL+path)
		cancel()
		if words == "" && err != nil || words != "" && (err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "second line")) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, address := health.NewNetwork(), l.Addr().String()
	if err := n.TCP(t.Context(), address); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.TCP(t.Context(), address); err == nil || !strings.Contains(err.Error(), "connect to "+address) {
		t.Errorf("got %v", err)
	}
	if err := n.HTTP(t.Context(), "http://"+address+"/"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
}
