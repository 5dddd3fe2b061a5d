package remote

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"hash"
	"hash/crc32"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// gcs is Google's store: by its JSON interface, and in parts, which that lacks, by its XML
// one, whose words are Amazon's.
type gcs struct {
	bucket string
	home   *url.URL
	open   bool               // an emulator, which asks for no credentials
	token  oauth2.TokenSource // nil where there are none
	xml    s3                 // reads the answers of that interface
}

const gcsHome = "https://storage.googleapis.com"

func (g *gcs) find(ctx context.Context) (err error) {
	emulator := os.Getenv("STORAGE_EMULATOR_HOST")
	if emulator != "" && !strings.Contains(emulator, "://") {
		emulator = "http://" + emulator
	}
	if g.home, err = url.Parse(strings.TrimRight(cmp.Or(emulator, gcsHome), "/")); err != nil || g.home.Hostname() == "" {
		return usage.Errorf("STORAGE_EMULATOR_HOST: %q is no address", emulator)
	}
	if g.open = emulator != ""; g.open {
		return nil
	}
	ask := context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, &http.Client{Timeout: quiet})
	found, err := google.FindDefaultCredentials(ask, "https://www.googleapis.com/auth/devstorage.read_write")
	switch {
	case err == nil:
		g.token = found.TokenSource
	case os.Getenv("GOOGLE_APPLICATION_CREDENTIALS") != "":
		return usage.Errorf("GOOGLE_APPLICATION_CREDENTIALS: %s", words(err.Error()))
	}
	return ctx.Err()
}

func (g *gcs) access() (bool, string) {
	return g.open || g.token != nil, "set GOOGLE_APPLICATION_CREDENTIALS, or log in with `gcloud auth application-default login`"
}

// lacksParts: of the XML interface, emulators have little.
func (g *gcs) lacksParts(e *statusError) bool { return g.open && e.status/100 != 5 }

func (g *gcs) moved(*statusError) bool { return false }

func (g *gcs) sign(r *http.Request) error {
	if g.token == nil || r.URL.Scheme != g.home.Scheme || r.URL.Host != g.home.Host {
		return nil
	}
	token, err := g.token.Token()
	if err != nil {
		return errors.New("credentials: " + words(err.Error()))
	}
	token.SetAuthHeader(r)
	return nil
}

func (g *gcs) digest() hash.Hash { return crc32.New(castagnoli) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// describe is what the store compares a body with. Its XML interface wants the time too.
func (g *gcs) describe(b *body) http.Header {
	h := g.now()
	h.Set("X-Goog-Hash", "crc32c="+base64.StdEncoding.EncodeToString(b.sum))
	return h
}

func (g *gcs) now() http.Header {
	return http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}
}

// in is an address of the JSON interface.
func (g *gcs) in(service, key string, q url.Values) string {
	at := g.home.String() + service + "/storage/v1/b/" + escape(g.bucket, false) + "/o"
	if key != "" {
		at += "/" + escape(key, false)
	}
	if len(q) > 0 {
		at += "?" + q.Encode()
	}
	return at
}

func (g *gcs) listing(prefix string, deep bool, page string) request {
	q := url.Values{"prefix": {prefix}, "fields": {"items(name,size,generation),nextPageToken"}}
	if !deep {
		q.Set("delimiter", "/")
	}
	if page != "" {
		q.Set("pageToken", page)
	}
	return request{address: g.in("", "", q)}
}

func (g *gcs) listed(text []byte) (some []object, next string, err error) {
	var list struct {
		Items []struct {
			Name       string
			Size       int64 `json:",string"`
			Generation string
		}
		NextPageToken string
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, "", err
	}
	for _, one := range list.Items {
		some = append(some, object{one.Name, one.Size, one.Generation})
	}
	return some, list.NextPageToken, nil
}

func (g *gcs) reading(o object) request {
	return request{address: g.in("/download", o.key, url.Values{"alt": {"media"}, "generation": {o.version}})}
}

func (g *gcs) remove(key string) request {
	return request{method: http.MethodDelete, address: g.in("", key, nil)}
}

func (g *gcs) put(key string, b *body, fresh bool) request {
	q := url.Values{"uploadType": {"media"}, "name": {key}}
	if fresh {
		q.Set("ifGenerationMatch", "0")
	}
	h := g.describe(b)
	h.Set("Content-Type", "application/octet-stream")
	return request{method: http.MethodPost, address: g.in("/upload", "", q), body: b, header: h}
}

// at is an address of the XML interface.
func (g *gcs) at(key, query string) string {
	return g.home.String() + "/" + g.bucket + "/" + escape(key, true) + query
}

func (g *gcs) begin(key string) (request, bool) {
	return request{method: http.MethodPost, address: g.at(key, "?uploads="), header: g.now()}, true
}

func (g *gcs) begun(text []byte) (id string, err error) { return g.xml.begun(text) }

func (g *gcs) part(key, id string, n int, b *body) request {
	q := "?partNumber=" + strconv.Itoa(n) + "&uploadId=" + url.QueryEscape(id)
	return request{method: http.MethodPut, address: g.at(key, q), body: b, header: g.describe(b)}
}

func (g *gcs) complete(key, id string, tags []string, fresh bool) request {
	h := g.now()
	if fresh {
		h.Set("X-Goog-If-Generation-Match", "0")
	}
	return request{method: http.MethodPost, address: g.at(key, "?uploadId="+url.QueryEscape(id)), body: textBody(partList(tags)), header: h, patience: putTogether}
}

func (g *gcs) abort(key, id string) (request, bool) {
	return request{method: http.MethodDelete, address: g.at(key, "?uploadId="+url.QueryEscape(id)), header: g.now()}, true
}
