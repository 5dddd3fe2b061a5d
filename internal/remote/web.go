package remote

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/usage"
)

const indexEnd = ".safetensors.index.json"

// openWeb returns a file of a web server, or an index with its shards. An address of the
// hub's pages is that of the repository's file.
func openWeb(address string, p *pace) (files.Source, error) {
	at, err := url.Parse(address)
	if err != nil || at.Hostname() == "" {
		return nil, usage.Errorf("%s: is no address of a file", unsignedText(address))
	}
	if hub, ok := onHubPage(at); ok {
		return openHub(hub, p)
	}
	name := path.Base(at.Path)
	if !strings.HasSuffix(name, ".safetensors") && !strings.HasSuffix(name, indexEnd) {
		return nil, usage.Errorf("%s: servers do not list their folders: name a .safetensors file or a %s file", unsigned(at), "*"+indexEnd)
	}
	folder := &url.URL{Scheme: at.Scheme, Host: at.Host, Path: strings.TrimSuffix(at.Path, name)}
	return files.At(&web{pace: p, client: newClient(only(at, at.User, nil)), file: at, folder: folder, name: name}, name), nil
}

// unsignedText is an address as it was given, without what stands before the last @ or after
// a question mark. An @ of the hub's comes before a revision.
func unsignedText(address string) string {
	address, _, _ = strings.Cut(address, "?")
	scheme, rest, _ := strings.Cut(address, "://")
	secret := rest
	if strings.EqualFold(scheme, "hf") {
		secret, _, _ = strings.Cut(rest, "/")
	}
	return scheme + "://" + rest[strings.LastIndexByte(secret, '@')+1:]
}

// web is a file of a web server and, of an index, the files beside it that it names.
type web struct {
	*client
	*pace
	file   *url.URL
	folder *url.URL // of the file, ending in a slash
	name   string   // of the file
	once   sync.Once
	known  []string
	err    error
}

func (w *web) String() string { return strings.TrimSuffix(unsigned(w.folder), "/") }

// List returns the file, and of an index its shards and the config.
func (w *web) List(ctx context.Context) ([]string, error) {
	w.once.Do(func() { w.known, w.err = w.names(ctx) })
	return w.known, w.err
}

func (w *web) names(ctx context.Context) ([]string, error) {
	if !strings.HasSuffix(w.name, indexEnd) {
		return []string{w.name}, nil
	}
	text, _, err := w.text(ctx, request{address: w.file.String()})
	if err != nil {
		return nil, w.explain(err)
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	names := []string{w.name}
	if json.Unmarshal(text, &index) == nil { // who reads the index says what is wrong with it
		for _, shard := range index.WeightMap {
			if fs.ValidPath(shard) {
				names = append(names, shard)
			}
		}
	}
	_, err = w.head(ctx, w.address("config.json"))
	switch status := (*statusError)(nil); {
	case err == nil:
		names = append(names, "config.json")
	case !errors.As(err, &status) || status.passing(): // else there is none, or none for who asks
		return nil, err
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (w *web) address(name string) string {
	if name == w.name {
		return w.file.String()
	}
	return below(w.folder, name)
}

// below is the address of a file in a folder.
func below(folder *url.URL, name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return folder.JoinPath(parts...).String()
}

// lastName is the file that an address ends in.
func lastName(address string) string {
	name, err := url.PathUnescape(path.Base(address))
	if err != nil {
		return path.Base(address)
	}
	return name
}

// Open asks for the size and the version of a file.
func (w *web) Open(ctx context.Context, name string) (files.File, error) {
	address := w.address(name)
	a, err := w.head(ctx, address)
	if err != nil {
		return nil, w.explain(err)
	}
	return &file{client: w.client, pace: w.pace, ctx: ctx, address: address, size: a.size, version: a.version, host: a.host}, nil
}

// head asks for what there is to know of a file but its bytes.
func (c *client) head(ctx context.Context, address string) (*about, error) {
	for a := c.attempts(ctx); ; {
		one, err := c.headOnce(ctx, address)
		if err == nil {
			return one, nil
		}
		if err := a.again(err); err != nil {
			return nil, err
		}
	}
}

// about is what is known of a file.
type about struct {
	size    int64
	version string
	host    string // that answered
}

// headOnce asks by HEAD or, where an address is signed for GET alone or a server knows no
// other, for one byte.
func (c *client) headOnce(ctx context.Context, address string) (*about, error) {
	a, err := c.get(ctx, request{method: http.MethodHead, address: address})
	if status := (*statusError)(nil); errors.As(err, &status) && (status.status == http.StatusForbidden || status.status == http.StatusMethodNotAllowed || status.status == http.StatusNotImplemented) {
		a, err = c.get(ctx, request{address: address, to: 1})
	}
	if err != nil {
		return nil, err
	}
	a.Body.Close()
	size := a.ContentLength
	if _, _, all, ok := contentRange(a.Header.Get("Content-Range")); ok {
		size = all
	}
	if size < 0 {
		return nil, final{errors.New(a.address + ": the server does not say how large the file is: download it, and name it")}
	}
	return &about{size, version(a.Header), a.url.Host}, nil
}

// explain says what to do about an answer.
func (w *web) explain(err error) error {
	status := (*statusError)(nil)
	if !errors.As(err, &status) {
		return err
	}
	switch status.status {
	case http.StatusNotFound, http.StatusGone:
		return &fs.PathError{Op: "open", Path: status.address, Err: fs.ErrNotExist}
	case http.StatusUnauthorized, http.StatusForbidden:
		return usage.SourceErrorf("%w: an address that gives access is needed: https://USER:PASSWORD@HOST/… or one that is signed", err)
	}
	return err
}
