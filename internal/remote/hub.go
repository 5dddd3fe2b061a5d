package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// hubEndpoint is where the hub is unless HF_ENDPOINT says otherwise.
const hubEndpoint = "https://huggingface.co"

// hub is a repository of models on the Hugging Face hub at one revision. What is asked
// of it is its public HTTP interface: the commit of a revision, the tree of a commit,
// and files by "resolve", which redirects to where large ones are.
type hub struct {
	*client
	*pace
	endpoint *url.URL
	repo     string // ORG/NAME
	revision string // as it was asked for

	once sync.Once
	held *tree
	err  error
}

// tree is what a repository holds at a commit.
type tree struct {
	commit string
	names  []string
	files  map[string]entry
}

// entry is a file as the hub lists it.
type entry struct {
	Type string `json:"type"`
	Path string `json:"path"`
	Size int64  `json:"size"`
	LFS  *struct {
		OID  string `json:"oid"` // its sha256
		Size int64  `json:"size"`
	} `json:"lfs"`
}

// openHub returns a repository, or a file or folder of it: hf://ORG/NAME[@REV][/PATH].
func openHub(address string, p *pace) (files.Source, error) {
	repo, revision, name, err := parseHub(address)
	if err != nil {
		return nil, usage.Errorf("%s: %w", unsignedText(address), err)
	}
	endpoint, err := url.Parse(strings.TrimRight(cmp.Or(os.Getenv("HF_ENDPOINT"), hubEndpoint), "/"))
	if err != nil || endpoint.Hostname() == "" || endpoint.Scheme != "https" && endpoint.Scheme != "http" {
		return nil, usage.Errorf("HF_ENDPOINT: %q is no address like %s", os.Getenv("HF_ENDPOINT"), hubEndpoint)
	}
	h := &hub{pace: p, client: newClient(only(endpoint, nil, hubToken)), endpoint: endpoint, repo: repo, revision: revision}
	if name == "" {
		return h, nil
	}
	return files.At(h, name), nil
}

// wide finds revisions whose names have slashes. (Patterns are made when they are needed, as
// they would cost every start of the program.)
var wide = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^refs/(pr|convert)/[^/]+`) })

// parseHub takes an address apart. A revision with slashes of its own is one of a pull
// request, or has them as %2F.
func parseHub(address string) (repo, revision, name string, err error) {
	const want = "want hf://ORG/NAME, with @REVISION and /PATH where they are needed"
	_, rest, _ := strings.Cut(address, "://")
	rest = strings.TrimPrefix(strings.TrimRight(rest, "/"), "models/")
	org, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return "", "", "", errors.New(want)
	}
	end := strings.IndexAny(rest, "/@")
	if end < 0 {
		end = len(rest)
	}
	repo, rest = org+"/"+rest[:end], rest[end:]
	revision = "main"
	if after, ok := strings.CutPrefix(rest, "@"); ok {
		at := wide().FindString(after)
		if at == "" {
			at, _, _ = strings.Cut(after, "/")
		}
		rest = after[len(at):]
		if revision, err = url.PathUnescape(at); err != nil || revision == "" {
			return "", "", "", errors.New(want)
		}
	}
	name = strings.TrimPrefix(rest, "/")
	if !repository().MatchString(repo) || name != "" && !fs.ValidPath(name) {
		return "", "", "", errors.New(want)
	}
	return repo, revision, name, nil
}

// onHubPage returns the hub's address of a page or a file of the hub's site.
func onHubPage(at *url.URL) (address string, ok bool) {
	if at.Host != "huggingface.co" && at.Host != "hf.co" {
		return "", false
	}
	parts := strings.SplitN(strings.Trim(at.Path, "/"), "/", 5)
	if len(parts) < 2 || parts[0] == "datasets" || parts[0] == "spaces" || parts[0] == "api" {
		return "", false
	}
	address = "hf://" + parts[0] + "/" + parts[1]
	if len(parts) == 2 {
		return address, true
	}
	if kind := parts[2]; len(parts) < 4 || kind != "resolve" && kind != "blob" && kind != "tree" {
		return "", false
	}
	address += "@" + url.PathEscape(parts[3])
	if len(parts) == 5 {
		address += "/" + parts[4]
	}
	return address, true
}

// String is what messages call it.
func (h *hub) String() string {
	if h.revision == "main" {
		return "hf://" + h.repo
	}
	return "hf://" + h.repo + "@" + h.revision
}

// List returns the names of all files.
func (h *hub) List(ctx context.Context) ([]string, error) {
	t, err := h.tree(ctx)
	if err != nil {
		return nil, err
	}
	return t.names, nil
}

// Open opens a file: one that is in the cache of this machine there.
func (h *hub) Open(ctx context.Context, name string) (files.File, error) {
	t, err := h.tree(ctx)
	if err != nil {
		return nil, err
	}
	one, ok := t.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if f := cached(h.snapshot(t.commit), name, one.Size); f != nil {
		return f, nil
	}
	sum := ""
	if one.LFS != nil {
		sum = one.LFS.OID
	}
	return &hubFile{hub: h, sum: sum, file: file{
		client: h.client, pace: h.pace, ctx: ctx, size: one.Size,
		address: below(h.endpoint.JoinPath(h.repo, "resolve", t.commit), name),
	}}, nil
}

// hubFile is a file whose errors say what to do about access. Its content is that of a
// commit, and does not change.
type hubFile struct {
	hub *hub
	sum string // sha256 of all of it, "" where the hub does not say
	file
}

// SHA256 is what the hub states.
func (f *hubFile) SHA256() string { return f.sum }

func (f *hubFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(p, off)
	return n, f.hub.explain(err)
}

// tree returns what the repository holds, which is asked for once.
func (h *hub) tree(ctx context.Context) (*tree, error) {
	h.once.Do(func() { h.held, h.err = h.list(ctx) })
	return h.held, h.err
}

// list finds the commit of the revision and what it holds.
func (h *hub) list(ctx context.Context) (*tree, error) {
	if offline() {
		return h.listCached()
	}
	text, _, err := h.text(ctx, request{address: h.api("revision", h.revision)})
	if err != nil {
		return nil, h.explain(err)
	}
	var info struct {
		SHA string `json:"sha"`
	}
	if err := json.Unmarshal(text, &info); err != nil || !isCommit(info.SHA) {
		return nil, fmt.Errorf("the hub names no commit of revision %s", h.revision)
	}
	t := &tree{commit: info.SHA, files: map[string]entry{}}
	var seen pages
	for next := h.api("tree", t.commit) + "?recursive=true"; next != ""; {
		if !seen.add(next) {
			return nil, errors.New("the hub's list of files does not end")
		}
		text, header, err := h.text(ctx, request{address: next})
		if err != nil {
			return nil, h.explain(err)
		}
		var some []entry
		if err := json.Unmarshal(text, &some); err != nil {
			return nil, fmt.Errorf("the hub's list of files: %w", err)
		}
		t.add(some)
		if next, err = h.nextPage(next, header); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *tree) add(some []entry) {
	for _, one := range some {
		if one.Type != "file" {
			continue
		}
		if one.LFS != nil {
			one.Size = one.LFS.Size
		}
		t.names, t.files[one.Path] = append(t.names, one.Path), one
	}
}

// nextLink is the part of a Link header that leads on.
var nextLink = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`<([^>]*)>\s*;[^,]*\brel="?next"?`) })

// nextPage returns the address of the next part of a list, "" for none. It must be the
// hub's, as it is sent the token.
func (h *hub) nextPage(now string, header http.Header) (string, error) {
	m := nextLink().FindStringSubmatch(strings.Join(header.Values("Link"), ", "))
	if m == nil {
		return "", nil
	}
	at, err := url.Parse(now)
	if err == nil {
		at, err = at.Parse(m[1])
	}
	if err != nil || at.Host != h.endpoint.Host {
		return "", errors.New("the hub's list of files goes on at no address of the hub's")
	}
	return at.String(), nil
}

func (h *hub) api(what, revision string) string {
	return h.endpoint.JoinPath("api", "models", h.repo, what).String() + "/" + url.PathEscape(revision)
}

func isCommit(text string) bool {
	return len(text) == 40 && strings.Trim(text, "0123456789abcdef") == ""
}

// explain says what to do about an answer of the hub's.
func (h *hub) explain(err error) error {
	status := (*statusError)(nil)
	if !errors.As(err, &status) {
		return err
	}
	access := "set HF_TOKEN, or log in with `hf auth login`"
	if hubToken() != "" {
		access = "the token that is set may not read it"
	}
	switch code := status.code; {
	case code == "GatedRepo":
		return usage.SourceErrorf("is gated: ask for access at %s, and %s", h.page(), access)
	case code == "RevisionNotFound":
		return usage.SourceErrorf("the repository has no revision %s", h.revision)
	case code == "EntryNotFound":
		return usage.SourceErrorf("%s is not there any more", lastName(status.address))
	case status.status == http.StatusUnauthorized && code == "" && status.message != "" && hubToken() != "":
		return usage.SourceErrorf("%w: the hub does not take the token that is set: set another one, or none", err)
	case code == "RepoNotFound", status.status == http.StatusUnauthorized, status.status == http.StatusNotFound:
		return noRepository{usage.SourceErrorf("there is no such repository, or it is private: %s", access)}
	case status.status == http.StatusForbidden:
		return usage.SourceErrorf("%w: %s", err, access)
	}
	return err
}

// noRepository is the error that a repository is not there for who asks.
type noRepository struct{ error }

func (e noRepository) Unwrap() error { return e.error }

func (h *hub) page() string { return h.endpoint.JoinPath(h.repo).String() }

// hubToken is what gives access to the hub, as its own tools find it.
func hubToken() string {
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if token := clean(os.Getenv(name)); token != "" {
			return token
		}
	}
	at := cmp.Or(os.Getenv("HF_TOKEN_PATH"), filepath.Join(hubHome(), "token"))
	text, err := os.ReadFile(at)
	if err != nil || len(text) > 4096 {
		return ""
	}
	return clean(string(text))
}

// clean is a token without the line breaks that files have; nothing where it could not
// stand in a header.
func clean(token string) string {
	token = strings.TrimSpace(token)
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return ""
		}
	}
	return token
}
