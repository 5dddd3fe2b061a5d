package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/tensorpress/tensorpress/internal/hubtest"
	"github.com/tensorpress/tensorpress/internal/storetest"
)

// hub ORG/NAME FOLDER serves a folder as a repository of a hub for the rest of the script,
// to which HF_ENDPOINT leads. With -gated TOKEN it takes that token to read it; with -down
// every request fails; with -flaky one in ten breaks off or is refused.
func hub(ts *testscript.TestScript, neg bool, args []string) {
	h := hubtest.New()
	ts.Defer(h.Close)
	gated := false
	for strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-gated":
			h.Token, gated, args = args[1], true, args[1:]
		case "-down":
			h.Fail = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
		case "-flaky":
			h.Fail = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n%10 == 5 {
					w.WriteHeader(http.StatusTooManyRequests)
				}
				return n%10 == 5
			}
			h.Break = func(n int, _ *http.Request) int64 { return int64(n % 10 / 9 * 1000) }
		}
		args = args[1:]
	}
	_, err := h.AddFolder(args[0], ts.MkAbs(args[1]))
	check(ts, err)
	h.Restrict(args[0], false, gated)
	home := ts.MkAbs("hf")
	check(ts, os.MkdirAll(home, 0o777))
	ts.Setenv("HF_ENDPOINT", h.Endpoint())
	ts.Setenv("HF_HOME", home)
}

// web FOLDER serves a folder for the rest of the script at $WEB. With -tls it does so by
// https, and would speak HTTP/2, to refuse it; with -proxy that is another host, which only
// the proxy of $HTTPS_PROXY leads to. With -changes the file becomes another one once
// some of it was read.
func web(ts *testscript.TestScript, neg bool, args []string) {
	folder := ts.MkAbs(args[len(args)-1])
	var asked atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if args[0] == "-changes" {
			w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprint(asked.Add(1)/6)))
		}
		if r.ProtoMajor > 1 {
			http.Error(w, "one connection for all", http.StatusHTTPVersionNotSupported)
			return
		}
		http.FileServer(http.Dir(folder)).ServeHTTP(w, r)
	}))
	ts.Defer(s.Close)
	if len(args) == 1 || args[0] == "-changes" {
		s.Start()
		ts.Setenv("WEB", s.URL)
		return
	}
	s.EnableHTTP2 = true
	s.StartTLS()
	ts.Setenv("WEB", s.URL)
	authority := ts.MkAbs("authority.pem")
	check(ts, os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o666))
	ts.Setenv("SSL_CERT_FILE", authority)
	if args[0] == "-proxy" {
		p := httptest.NewServer(leadsTo(s.Listener.Addr().String()))
		ts.Defer(p.Close)
		ts.Setenv("HTTPS_PROXY", p.URL)
		ts.Setenv("WEB", "https://example.com") // which the certificate names
	}
}

// leadsTo is a proxy that knows one host, and where that really is.
func leadsTo(address string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "example.com:443" {
			http.Error(w, r.Host, http.StatusForbidden)
			return
		}
		there, err := net.Dial("tcp", address)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			io.Copy(there, here)
			there.Close()
		}()
		io.Copy(here, there)
	})
}

// store FOLDER... serves folders as a bucket "models" of object stores of every kind for
// the rest of the script, to which the environment leads.
func store(ts *testscript.TestScript, neg bool, args []string) {
	s := storetest.New("models")
	ts.Defer(s.Close)
	for _, folder := range args {
		root := os.DirFS(ts.MkAbs("."))
		check(ts, fs.WalkDir(root, folder, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := fs.ReadFile(root, name)
			s.Put(name, text)
			return err
		}))
	}
	for name, value := range s.Environment() {
		ts.Setenv(name, value)
	}
}

// stored KEY FILE writes what the store that serves the script has under a key to a file;
// with ! nothing may be there. With FILE first and KEY after -put it puts a file there.
func stored(ts *testscript.TestScript, neg bool, args []string) {
	method, body, key := http.MethodGet, io.Reader(nil), args[0]
	if args[0] == "-put" {
		text, err := os.ReadFile(ts.MkAbs(args[1]))
		check(ts, err)
		method, body, key = http.MethodPut, bytes.NewReader(text), args[2]
	}
	r, err := http.NewRequest(method, ts.Getenv("AWS_ENDPOINT_URL")+"/account/models/"+key, body)
	check(ts, err)
	r.Header.Set("Authorization", "SharedKey account:")
	answer, err := http.DefaultClient.Do(r)
	check(ts, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	check(ts, err)
	if (answer.StatusCode/100 != 2) != neg {
		ts.Fatalf("%s: %s", key, answer.Status)
	}
	if method == http.MethodGet && !neg {
		check(ts, os.WriteFile(ts.MkAbs(args[1]), text, 0o666))
	}
}
