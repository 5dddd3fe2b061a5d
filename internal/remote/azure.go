package remote

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// azure is a container of Azure's blobs, in the account that the environment names.
type azure struct {
	container string
	account   string
	home      *url.URL
	key       []byte     // signs, nil for none
	shared    url.Values // a signature that was shared, nil for none
	login     oauth2.TokenSource
}

// azureVersion is that of the interface.
const azureVersion = "2021-12-02"

// The account of the emulator, which everybody knows.
const (
	azuriteAccount = "devstoreaccount1"
	azuriteKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// find takes the account from a connection string or from the names that Azure's and other
// tools have for it; without a key, whoever is logged in counts.
func (a *azure) find(ctx context.Context) error {
	given := connection(os.Getenv("AZURE_STORAGE_CONNECTION_STRING"))
	a.account = cmp.Or(given["AccountName"], os.Getenv("AZURE_STORAGE_ACCOUNT"), os.Getenv("AZURE_STORAGE_ACCOUNT_NAME"))
	key := cmp.Or(given["AccountKey"], os.Getenv("AZURE_STORAGE_KEY"), os.Getenv("AZURE_STORAGE_ACCOUNT_KEY"))
	shared := cmp.Or(given["SharedAccessSignature"], os.Getenv("AZURE_STORAGE_SAS_TOKEN"))
	address := cmp.Or(given["BlobEndpoint"], os.Getenv("AZURE_STORAGE_SERVICE_ENDPOINT"))
	if strings.EqualFold(given["UseDevelopmentStorage"], "true") {
		a.account, key, address = azuriteAccount, azuriteKey, "http://127.0.0.1:10000/"+azuriteAccount
	}
	if a.account == "" && address == "" {
		return usage.Errorf("whose container that is, is not known: set AZURE_STORAGE_ACCOUNT, or AZURE_STORAGE_CONNECTION_STRING")
	}
	if address == "" {
		address = cmp.Or(given["DefaultEndpointsProtocol"], "https") + "://" + a.account + ".blob." + cmp.Or(given["EndpointSuffix"], "core.windows.net")
	}
	var err error
	if a.home, err = url.Parse(strings.TrimRight(address, "/")); err != nil || a.home.Hostname() == "" {
		return usage.Errorf("the account's address for blobs is no address")
	}
	if a.account == "" {
		a.account, _, _ = strings.Cut(a.home.Hostname(), ".")
	}
	switch {
	case key != "":
		if a.key, err = base64.StdEncoding.DecodeString(key); err != nil {
			return usage.Errorf("the key of the storage account %s is not in base64", a.account)
		}
	case shared != "":
		if a.shared, err = url.ParseQuery(strings.TrimPrefix(shared, "?")); err != nil {
			return usage.Errorf("the shared signature for the storage account %s cannot be read", a.account)
		}
	case a.home.Scheme == "https": // a token is not sent in the clear
		a.login = azureLogin(ctx)
	}
	return ctx.Err()
}

// connection takes a connection string apart.
func connection(text string) map[string]string {
	all := map[string]string{}
	for part := range strings.SplitSeq(text, ";") {
		if name, value, ok := strings.Cut(strings.TrimSpace(part), "="); ok {
			all[name] = value
		}
	}
	return all
}

func (a *azure) access() (bool, string) {
	return a.key != nil || a.shared != nil || a.login != nil,
		"set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN for the storage account " + a.account + ", or log in with `az login`"
}

func (a *azure) lacksParts(*statusError) bool { return false }

func (a *azure) moved(*statusError) bool { return false }

// sign adds a shared signature, a token, or a signature with the key.
func (a *azure) sign(r *http.Request) error {
	r.Header.Set("X-Ms-Version", azureVersion)
	r.Header.Set("X-Ms-Date", time.Now().UTC().Format(http.TimeFormat))
	switch {
	case r.URL.Scheme != a.home.Scheme || r.URL.Host != a.home.Host:
	case a.shared != nil:
		q := r.URL.Query()
		for name, values := range a.shared {
			q[name] = values
		}
		r.URL.RawQuery = q.Encode()
	case a.login != nil:
		token, err := a.login.Token()
		if err != nil {
			return errors.New("credentials: " + words(err.Error()))
		}
		r.Header.Set("Authorization", "Bearer "+token.AccessToken)
	case a.key != nil:
		mac := hmac.New(sha256.New, a.key)
		mac.Write([]byte(a.canonical(r)))
		r.Header.Set("Authorization", "SharedKey "+a.account+":"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return nil
}

// canonical is the text of a request that is signed.
func (a *azure) canonical(r *http.Request) string {
	h := r.Header
	length := ""
	if r.ContentLength > 0 {
		length = fmt.Sprint(r.ContentLength)
	}
	lines := []string{
		r.Method, h.Get("Content-Encoding"), h.Get("Content-Language"), length, h.Get("Content-MD5"), h.Get("Content-Type"), "",
		h.Get("If-Modified-Since"), h.Get("If-Match"), h.Get("If-None-Match"), h.Get("If-Unmodified-Since"), h.Get("Range"),
	}
	own := make([]string, 0, 4)
	for name := range h {
		if name := strings.ToLower(name); strings.HasPrefix(name, "x-ms-") {
			own = append(own, name+":"+strings.TrimSpace(h.Get(name)))
		}
	}
	slices.Sort(own)
	lines = append(append(lines, own...), "/"+a.account+r.URL.EscapedPath())
	q := r.URL.Query()
	for _, name := range sorted(q) {
		lines = append(lines, strings.ToLower(name)+":"+strings.Join(q[name], ","))
	}
	return strings.Join(lines, "\n")
}

func (a *azure) digest() hash.Hash { return md5.New() }

func (a *azure) describe(b *body) http.Header {
	return http.Header{"Content-Md5": {base64.StdEncoding.EncodeToString(b.sum)}}
}

func (a *azure) at(key string, q url.Values) string {
	at := a.home.String() + "/" + a.container
	if key != "" {
		at += "/" + escape(key, true)
	}
	if len(q) > 0 {
		at += "?" + q.Encode()
	}
	return at
}

func (a *azure) listing(prefix string, deep bool, page string) request {
	q := url.Values{"restype": {"container"}, "comp": {"list"}, "prefix": {prefix}}
	if !deep {
		q.Set("delimiter", "/")
	}
	if page != "" {
		q.Set("marker", page)
	}
	return request{address: a.at("", q)}
}

func (a *azure) listed(text []byte) (some []object, next string, err error) {
	var list struct {
		XMLName xml.Name `xml:"EnumerationResults"`
		Blobs   struct {
			Blob []struct {
				Name       string
				Properties struct {
					Size int64  `xml:"Content-Length"`
					Etag string `xml:"Etag"`
				}
			}
		}
		NextMarker string
	}
	if err := xml.Unmarshal(text, &list); err != nil {
		return nil, "", err
	}
	for _, one := range list.Blobs.Blob {
		tag := one.Properties.Etag
		if tag != "" && !strings.HasPrefix(tag, `"`) { // as it stands in lists
			tag = `"` + tag + `"`
		}
		some = append(some, object{one.Name, one.Properties.Size, tag})
	}
	return some, list.NextMarker, nil
}

func (a *azure) reading(o object) request {
	return request{address: a.at(o.key, nil), header: http.Header{"If-Match": {o.version}}}
}

func (a *azure) remove(key string) request {
	return request{method: http.MethodDelete, address: a.at(key, nil)}
}

func (a *azure) put(key string, b *body, fresh bool) request {
	h := isNew(fresh, a.describe(b))
	h.Set("X-Ms-Blob-Type", "BlockBlob")
	return request{method: http.MethodPut, address: a.at(key, nil), body: b, header: h}
}

// begin asks nothing: blocks are kept for a week until a list makes a blob of them.
func (a *azure) begin(string) (request, bool) { return request{}, false }

func (a *azure) begun([]byte) (string, error) { return "", nil }

// block is the name of a block, all of one length.
func block(n int) string { return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%08d", n)) }

func (a *azure) part(key, _ string, n int, b *body) request {
	return request{method: http.MethodPut, address: a.at(key, url.Values{"comp": {"block"}, "blockid": {block(n)}}), body: b, header: a.describe(b)}
}

func (a *azure) complete(key, _ string, tags []string, fresh bool) request {
	var text strings.Builder
	text.WriteString("<BlockList>")
	for i := range tags {
		text.WriteString("<Latest>" + block(i+1) + "</Latest>")
	}
	text.WriteString("</BlockList>")
	b := hashed(a, []byte(text.String()))
	return request{method: http.MethodPut, address: a.at(key, url.Values{"comp": {"blocklist"}}), body: b, header: isNew(fresh, a.describe(b)), patience: putTogether}
}

// abort asks nothing: the store forgets blocks that no list names.
func (a *azure) abort(string, string) (request, bool) { return request{}, false }
