// Package hubtest is a stand-in for the Hugging Face hub, for tests: it speaks the part of
// its interface that reading a repository takes, on the loopback, and fails as it is told
// to. No program imports it.
package hubtest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Large is the size from which a file is kept with the store that the hub redirects to.
const Large = 4096

// Hub is a hub with its store of large files, which is another host to a client.
type Hub struct {
	// Token is what gives access to private and gated repositories.
	Token string
	// Page is how many entries a list of files has before it goes on elsewhere, 0 for all.
	Page int
	// Latency is how long every answer takes.
	Latency time.Duration
	// Fail is called with the number of the request, from 0, and may answer it otherwise;
	// it reports whether it did. nil for none.
	Fail func(n int, w http.ResponseWriter, r *http.Request) bool
	// Break is called with the number of the request, and says after how many bytes of its
	// body the connection breaks, 0 for never. nil for never.
	Break func(n int, r *http.Request) int64
	// SignedFor is for how many requests a signed address is good, 0 for all.
	SignedFor int

	api, store *httptest.Server
	mu         sync.Mutex
	repos      map[string]*repo
	large      map[string]content // by their sha256
	signed     map[string]int     // how often an address of the store was asked for
	requests   []Request
}

// Request is one that was answered.
type Request struct {
	Host, Method, Path, Range, Authorization string
	Bytes                                    int64
}

type repo struct {
	commit  string
	files   map[string]content
	sums    map[string]string // sha256 of each
	private bool
	gated   bool
}

// New starts a hub. Close ends it.
func New() *Hub {
	h := &Hub{repos: map[string]*repo{}, large: map[string]content{}, signed: map[string]int{}}
	h.api = httptest.NewServer(h.watched(h.serveAPI))
	h.store = httptest.NewUnstartedServer(h.watched(h.serveStore))
	if l, err := net.Listen("tcp", "127.0.0.2:0"); err == nil { // a host of another name where the system has one
		h.store.Listener.Close()
		h.store.Listener = l
	}
	h.store.Start()
	return h
}

// Close ends the servers.
func (h *Hub) Close() {
	h.api.Close()
	h.store.Close()
}

// Endpoint is what HF_ENDPOINT is to be.
func (h *Hub) Endpoint() string { return h.api.URL }

// Store is the address of the store of large files.
func (h *Hub) Store() string { return h.store.URL }

// Add puts a repository there, or another commit of one: its files by their names.
func (h *Hub) Add(name string, files map[string][]byte) (commit string) {
	all := map[string]content{}
	for one, data := range files {
		all[one] = content{data: data, size: int64(len(data)), sum: sum(data)}
	}
	return h.add(name, all)
}

// content is a file in memory or, with a path, on disk.
type content struct {
	data []byte
	path string
	size int64
	sum  string // its sha256, or of a very large file on disk some other hash
}

// serve answers with it, or with a range of it.
func (c content) serve(w http.ResponseWriter, r *http.Request) {
	if c.path == "" {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(c.data))
		return
	}
	f, err := os.Open(c.path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	http.ServeContent(w, r, "", time.Time{}, f)
}

func (h *Hub) add(name string, files map[string]content) (commit string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all, sums := sha1.New(), map[string]string{}
	for _, one := range sorted(files) {
		body := files[one]
		hash := body.sum
		sums[one] = hash
		fmt.Fprintf(all, "%s %s\n", one, hash)
		if body.size >= Large {
			h.large[hash] = body
		}
	}
	r := &repo{commit: hex.EncodeToString(all.Sum(nil)), files: files, sums: sums}
	if old := h.repos[name]; old != nil {
		r.private, r.gated = old.private, old.gated
	}
	h.repos[name] = r
	return r.commit
}

// AddFolder is Add of the files of a folder.
func (h *Hub) AddFolder(name, folder string) (commit string, err error) {
	files := map[string]content{}
	err = filepath.WalkDir(folder, func(at string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		one, err := onDisk(at)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(folder, at)
		files[filepath.ToSlash(rel)] = one
		return err
	})
	return h.add(name, files), err
}

// onDisk is a file that is read when it is asked for, unless it is small.
func onDisk(at string) (content, error) {
	info, err := os.Stat(at)
	if err != nil {
		return content{}, err
	}
	if info.Size() > 4<<30 { // a hole for the most part, which nobody reads whole
		return content{path: at, size: info.Size(), sum: sum(fmt.Append(nil, at, info.Size(), info.ModTime()))}, nil
	}
	if info.Size() > 64<<20 {
		f, err := os.Open(at)
		if err != nil {
			return content{}, err
		}
		defer f.Close()
		h := sha256.New()
		_, err = io.Copy(h, f)
		return content{path: at, size: info.Size(), sum: hex.EncodeToString(h.Sum(nil))}, err
	}
	text, err := os.ReadFile(at)
	return content{data: text, size: int64(len(text)), sum: sum(text)}, err
}

// Restrict makes a repository private, or open to those alone whom it grants access.
func (h *Hub) Restrict(name string, private, gated bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repos[name].private, h.repos[name].gated = private, gated
}

// Requests returns what was asked so far.
func (h *Hub) Requests() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

func sorted[T any](of map[string]T) []string {
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// watched counts requests, and has them wait and fail.
func (h *Hub) watched(serve http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		n := len(h.requests)
		h.requests = append(h.requests, Request{Host: r.Host, Method: r.Method, Path: r.URL.Path, Range: r.Header.Get("Range"), Authorization: r.Header.Get("Authorization")})
		h.mu.Unlock()
		time.Sleep(h.Latency)
		if h.Fail != nil && h.Fail(n, w, r) {
			return
		}
		c := &counting{ResponseWriter: w}
		if h.Break != nil {
			c.most = h.Break(n, r)
		}
		defer func() {
			h.mu.Lock()
			h.requests[n].Bytes = c.n
			h.mu.Unlock()
		}()
		serve(c, r)
	})
}

type counting struct {
	http.ResponseWriter
	n, most int64
}

func (c *counting) Write(p []byte) (int, error) {
	if c.most > 0 && c.n+int64(len(p)) > c.most {
		n, _ := c.ResponseWriter.Write(p[:c.most-c.n])
		c.n += int64(n)
		http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

// refuse answers as the hub does, with a code of its own.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Error-Code", code)
	w.Header().Set("X-Error-Message", message)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": message})
}

// open finds a repository, and answers where the client may not see it.
func (h *Hub) open(w http.ResponseWriter, r *http.Request, name string, file bool) *repo {
	h.mu.Lock()
	one := h.repos[name]
	h.mu.Unlock()
	allowed := h.Token != "" && r.Header.Get("Authorization") == "Bearer "+h.Token
	switch {
	case one == nil || one.private && !allowed:
		refuse(w, http.StatusUnauthorized, "RepoNotFound", "Repository not found")
		return nil
	case one.gated && !allowed && file:
		status := http.StatusUnauthorized
		if r.Header.Get("Authorization") != "" {
			status = http.StatusForbidden
		}
		refuse(w, status, "GatedRepo", "Access to model "+name+" is restricted.")
		return nil
	}
	return one
}

func (h *Hub) serveAPI(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	for i := range parts {
		parts[i], _ = url.PathUnescape(parts[i])
	}
	switch {
	case len(parts) == 4 && parts[0] == "api" && parts[1] == "models":
		h.revision(w, r, parts[2]+"/"+parts[3], "main")
	case len(parts) == 6 && parts[0] == "api" && parts[1] == "models" && parts[4] == "revision":
		h.revision(w, r, parts[2]+"/"+parts[3], parts[5])
	case len(parts) >= 6 && parts[0] == "api" && parts[1] == "models" && parts[4] == "tree":
		h.tree(w, r, parts[2]+"/"+parts[3], parts[5])
	case len(parts) >= 5 && parts[2] == "resolve":
		h.resolve(w, r, parts[0]+"/"+parts[1], parts[3], strings.Join(parts[4:], "/"))
	default:
		http.NotFound(w, r)
	}
}

// at reports whether a revision is the repository's.
func (one *repo) at(w http.ResponseWriter, revision string) bool {
	if revision == "main" || revision == one.commit || revision == "refs/pr/1" {
		return true
	}
	refuse(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+revision)
	return false
}

func (h *Hub) revision(w http.ResponseWriter, r *http.Request, name, revision string) {
	one := h.open(w, r, name, false)
	if one == nil || !one.at(w, revision) {
		return
	}
	type sibling struct {
		Name string `json:"rfilename"`
	}
	var siblings []sibling
	for _, file := range sorted(one.files) {
		siblings = append(siblings, sibling{file})
	}
	answer(w, map[string]any{"id": name, "modelId": name, "sha": one.commit, "siblings": siblings, "private": one.private, "tags": []string{}, "downloads": 0, "likes": 0})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(v)
}

func (h *Hub) tree(w http.ResponseWriter, r *http.Request, name, revision string) {
	one := h.open(w, r, name, false)
	if one == nil || !one.at(w, revision) {
		return
	}
	var list []map[string]any
	folders := map[string]bool{}
	for _, file := range sorted(one.files) {
		if folder := strings.TrimSuffix(file, "/"+filepath.Base(file)); folder != file && !folders[folder] {
			folders[folder] = true
			list = append(list, map[string]any{"type": "directory", "oid": oid(nil), "size": 0, "path": folder})
		}
		body := one.files[file]
		entry := map[string]any{"type": "file", "oid": one.sums[file][:40], "size": body.size, "path": file}
		if body.size >= Large {
			entry["lfs"] = map[string]any{"oid": one.sums[file], "size": body.size, "pointerSize": 135}
		}
		list = append(list, entry)
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	to := len(list)
	if h.Page > 0 && from+h.Page < to {
		to = from + h.Page
		next := *r.URL
		q := next.Query()
		q.Set("cursor", strconv.Itoa(to))
		next.RawQuery = q.Encode()
		w.Header().Set("Link", "<"+h.api.URL+next.RequestURI()+">; rel=\"next\"")
	}
	answer(w, list[from:to])
}

// oid is git's name for a content, sum its sha256.
func oid(body []byte) string {
	s := sha1.Sum(append([]byte(fmt.Sprintf("blob %d\x00", len(body))), body...))
	return hex.EncodeToString(s[:])
}

func sum(body []byte) string {
	s := sha256.Sum256(body)
	return hex.EncodeToString(s[:])
}

func (h *Hub) resolve(w http.ResponseWriter, r *http.Request, name, revision, file string) {
	one := h.open(w, r, name, true)
	if one == nil || !one.at(w, revision) {
		return
	}
	body, ok := one.files[file]
	if !ok {
		refuse(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	w.Header().Set("X-Repo-Commit", one.commit)
	if body.size < Large {
		w.Header().Set("ETag", `"`+oid(body.data)+`"`)
		body.serve(w, r)
		return
	}
	h.mu.Lock()
	signature := fmt.Sprint(len(h.signed))
	h.signed[signature] = 0
	h.mu.Unlock()
	w.Header().Set("X-Linked-Size", strconv.FormatInt(body.size, 10))
	w.Header().Set("X-Linked-Etag", `"`+one.sums[file]+`"`)
	w.Header().Set("Location", h.store.URL+"/"+one.sums[file]+"?signature="+signature)
	w.WriteHeader(http.StatusFound)
}

func (h *Hub) serveStore(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	signature := r.URL.Query().Get("signature")
	used, ok := h.signed[signature]
	h.signed[signature] = used + 1
	body, held := h.large[strings.TrimPrefix(r.URL.Path, "/")]
	h.mu.Unlock()
	switch {
	case !ok || h.SignedFor > 0 && used >= h.SignedFor:
		http.Error(w, "Request has expired", http.StatusForbidden)
	case r.Header.Get("Authorization") != "": // as S3 refuses two ways to sign
		http.Error(w, "Only one auth mechanism allowed", http.StatusBadRequest)
	case !held:
		http.NotFound(w, r)
	default:
		w.Header().Set("ETag", `"`+r.URL.Path[1:33]+`"`)
		body.serve(w, r)
	}
}
