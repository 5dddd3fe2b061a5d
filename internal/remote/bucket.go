package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// dialect is how one kind of object store is asked. What comes and goes is the same with
// all: objects by keys, of which ranges are read, and which are written in parts.
type dialect interface {
	// find looks for credentials, and for where the bucket is. It is called once, before
	// all else.
	find(ctx context.Context) error
	// sign adds the credentials to a request, where its host may see them.
	sign(r *http.Request) error
	// moved reports whether an answer said that the bucket is elsewhere than was thought.
	moved(e *statusError) bool
	// access says whether there are credentials, and where they are looked for.
	access() (found bool, advice string)

	// listing asks for keys that begin with prefix, or for those alone that have no slash
	// after it.
	listing(prefix string, deep bool, page string) request
	listed(text []byte) (some []object, next string, err error)
	// reading asks for an object as it was listed, and for no other of its key.
	reading(o object) request
	remove(key string) request

	// digest is what the store compares a body with, and describe its text in a request.
	digest() hash.Hash
	// put writes a whole object; fresh fails where one of its key is there.
	put(key string, b *body, fresh bool) request
	// begin, part and complete write one in parts, of which nobody sees any before
	// complete. ok is false where there is nothing to ask.
	begin(key string) (r request, ok bool)
	begun(text []byte) (id string, err error)
	part(key, id string, n int, b *body) request
	complete(key, id string, tags []string, fresh bool) request
	abort(key, id string) (r request, ok bool)
	// lacksParts reports whether an answer to begin says that it knows no parts, as an
	// emulator may. Files go there whole then.
	lacksParts(e *statusError) bool
}

// object is what a store lists.
type object struct {
	key     string
	size    int64
	version string // in the store's words, which reading pins
}

// bucket is one of an object store.
type bucket struct {
	*client
	dialect
	address string // scheme://NAME
	once    sync.Once
	err     error
}

// stores are the kinds of object stores, by what stands before "://".
var stores = map[string]func(name string) dialect{
	"s3": func(name string) dialect { return &s3{bucket: name} },
	"gs": func(name string) dialect { return &gcs{bucket: name} },
	"az": func(name string) dialect { return &azure{container: name} },
}

func newBucket(scheme, name string) *bucket {
	b := &bucket{dialect: stores[scheme](name), address: scheme + "://" + name}
	b.client = newClient(b.sign)
	return b
}

// isBucket reports whether a store may have a bucket of that name. (A pattern would cost
// every start of the program.)
func isBucket(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return len(name) > 1 && len(name) <= 222 && strings.Trim(name, letters+"._-") == "" && strings.ContainsRune(letters, rune(name[0]))
}

// parseStore takes an address apart: s3://BUCKET/KEY.
func parseStore(address string) (b *bucket, key string, err error) {
	scheme, rest, _ := strings.Cut(address, "://")
	name, key, _ := strings.Cut(rest, "/")
	key = strings.TrimRight(key, "/")
	scheme = strings.ToLower(scheme)
	if !isBucket(name) || key != "" && !fs.ValidPath(key) {
		return nil, "", usage.Errorf("%s: want %s://BUCKET/FOLDER, or a file in it", unsignedText(address), scheme)
	}
	return newBucket(scheme, name), key, nil
}

// openStore returns a folder of a bucket, or a file with what lies beside it.
func openStore(address string, p *pace) (files.Source, error) {
	b, key, err := parseStore(address)
	if err != nil {
		return nil, err
	}
	if ext := path.Ext(key); ext != ".safetensors" && ext != ".json" {
		return &stored{bucket: b, pace: p, root: key, deep: true}, nil
	}
	folder, name := path.Split(key)
	return files.At(&stored{bucket: b, pace: p, root: strings.TrimSuffix(folder, "/")}, name), nil
}

// stored is a folder of a bucket as a source.
type stored struct {
	*bucket
	*pace
	root string
	deep bool // with all that lies below it

	list sync.Once
	held map[string]object
	all  []string
	err  error
}

func (s *stored) String() string { return s.named(s.root) }

// bare is the bucket's name alone.
func (b *bucket) bare() string {
	_, name, _ := strings.Cut(b.address, "://")
	return name
}

// named is the address of a key.
func (b *bucket) named(key string) string {
	if key == "" {
		return b.address
	}
	return b.address + "/" + key
}

// List returns the names of all objects that can be files of a folder.
func (s *stored) List(ctx context.Context) ([]string, error) {
	s.list.Do(func() {
		s.held, s.err = s.objects(ctx, s.root, s.deep)
		for name := range s.held {
			s.all = append(s.all, name)
		}
		slices.Sort(s.all)
		if s.err == nil && len(s.all) == 0 {
			s.err = &fs.PathError{Op: "open", Path: s.String(), Err: fs.ErrNotExist}
		}
	})
	return s.all, asSource(s.err)
}

// asSource marks what a store refuses as a fault of what was named.
func asSource(err error) error {
	var refused *refusal
	if errors.As(err, &refused) {
		return usage.Source(err)
	}
	return err
}

// Open opens an object as it was listed.
func (s *stored) Open(ctx context.Context, name string) (files.File, error) {
	if _, err := s.List(ctx); err != nil {
		return nil, err
	}
	o, ok := s.held[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return s.opened(ctx, o), nil
}

// opened is an object as it was listed.
func (s *stored) opened(ctx context.Context, o object) *storedFile {
	r := s.reading(o)
	return &storedFile{s, file{client: s.client, pace: s.pace, ctx: ctx, address: r.address, header: r.header, size: o.size}}
}

// storedFile is a file whose errors say what to do about access.
type storedFile struct {
	of *stored
	file
}

func (f *storedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(p, off)
	if status := (*statusError)(nil); errors.As(err, &status) && status.status == http.StatusNotFound {
		return n, errChanged // it was listed
	}
	if err != io.EOF {
		err = asSource(f.of.explain(err, "read"))
	}
	return n, err
}

// mostObjects bounds what is listed: nothing that holds more is a model.
const mostObjects = 100_000

// objects lists a folder of the bucket, names without the folder.
func (b *bucket) objects(ctx context.Context, folder string, deep bool) (map[string]object, error) {
	if folder != "" {
		folder += "/"
	}
	all := map[string]object{}
	err := b.each(ctx, folder, deep, func(o object) error {
		name := strings.TrimPrefix(o.key, folder)
		if !fs.ValidPath(name) || name == "." { // a mark of a folder, or nothing that a folder can hold
			return nil
		}
		all[name] = o
		if len(all) > mostObjects {
			return usage.Errorf("holds more than %d files: name the folder of a model", mostObjects)
		}
		return nil
	})
	return all, err
}

// object finds one key; ok is false where there is no such object.
func (b *bucket) object(ctx context.Context, key string) (found object, ok bool, err error) {
	err = b.each(ctx, key, false, func(o object) error {
		if o.key == key {
			found, ok = o, true
			return errEnough
		}
		return nil
	})
	if err == errEnough {
		err = nil
	}
	return found, ok, err
}

var errEnough = errors.New("enough")

// each lists what begins with a prefix.
func (b *bucket) each(ctx context.Context, prefix string, deep bool, do func(object) error) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	var seen pages
	for page, first := "", true; first || page != ""; first = false {
		if !seen.add(page) {
			return errors.New("the store's list does not end")
		}
		text, _, err := b.text(ctx, b.listing(prefix, deep, page))
		if status := (*statusError)(nil); errors.As(err, &status) && first && b.moved(status) {
			text, _, err = b.text(ctx, b.listing(prefix, deep, page))
		}
		if err != nil {
			return b.explain(err, "list")
		}
		some, next, err := b.listed(text)
		if err != nil {
			return fmt.Errorf("the store's list: %w", err)
		}
		for _, o := range some {
			if err := do(o); err != nil {
				return err
			}
		}
		page = next
	}
	return nil
}

func (b *bucket) ready(ctx context.Context) error {
	b.once.Do(func() { b.err = b.find(ctx) })
	return b.err
}

// refusal is an answer that says what to do about it.
type refusal struct {
	text string
	err  error
}

func (e *refusal) Error() string { return e.text }
func (e *refusal) Unwrap() error { return e.err }

// Codes of stores' answers, of which each has some.
var (
	noBucket = []string{"NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "InvalidResourceName", "notFound"}
	badKeys  = []string{
		"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidSecurity",
		"AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation", "authError",
	}
)

// explain says what to do about an answer to a wish to list, read or write.
func (b *bucket) explain(err error, wish string) error {
	status := (*statusError)(nil)
	if !errors.As(err, &status) {
		return err
	}
	found, advice := b.access()
	say := func(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...), err} }
	switch denied := status.status == http.StatusUnauthorized || status.status == http.StatusForbidden; {
	case slices.Contains(noBucket, status.code):
		return say("there is no bucket %s with the store at %s", b.bare(), hostOf(status.address))
	case denied && !found:
		return say("no credentials were found: %s", advice)
	case denied && slices.Contains(badKeys, status.code):
		return say("the store does not take the credentials (%s): %s", status.code, advice)
	case denied:
		return say("the credentials that were found may not %s here (%s)", wish, cmp.Or(status.code, http.StatusText(status.status)))
	case status.status == http.StatusNotFound && wish == "list":
		return say("there is no bucket %s with the store at %s", b.bare(), hostOf(status.address))
	}
	return err
}

func hostOf(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// escape writes a key as it stands in an address: all but unreserved characters as bytes,
// which is how stores sign it, and the slashes unless they are part of a name.
func escape(key string, slashes bool) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.~", c) >= 0, c == '/' && slashes:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
