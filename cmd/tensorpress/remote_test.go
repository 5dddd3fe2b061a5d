package main

import (
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

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

// web FOLDER serves a folder for the rest of the script at $WEB.
func web(ts *testscript.TestScript, neg bool, args []string) {
	s := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[0]))))
	ts.Defer(s.Close)
	ts.Setenv("WEB", s.URL)
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
