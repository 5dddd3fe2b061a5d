package remote

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// s3 is Amazon's store, and the many that are asked like it. Credentials, the region and
// another endpoint are found as its own tools find them; the requests are few enough to be
// written here.
type s3 struct {
	bucket   string
	endpoint *url.URL // of another store, nil for Amazon's
	keys     aws.CredentialsProvider
	why      string // there are no credentials
	signer   *v4.Signer

	mu     sync.Mutex
	region string
}

// s3Region is asked where no region is named.
const s3Region = "us-east-1"

func (s *s3) find(ctx context.Context) error {
	c, err := findAWS()
	if err != nil {
		return err
	}
	s.region = cmp.Or(c.region, s3Region)
	s.signer = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if c.endpoint != "" {
		if s.endpoint, err = url.Parse(strings.TrimRight(c.endpoint, "/")); err != nil || s.endpoint.Hostname() == "" {
			return usage.Errorf("AWS_ENDPOINT_URL: %q is no address", unsignedText(c.endpoint))
		}
	}
	if c.keys == nil {
		return ctx.Err()
	}
	ask, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	if _, err := c.keys.Retrieve(ask); err == nil {
		s.keys = c.keys
	} else if s.why = words(err.Error()); strings.Contains(s.why, "IMDS") { // nothing was set, and this machine is none of Amazon's
		s.why = ""
	}
	return ctx.Err()
}

func (s *s3) access() (bool, string) {
	advice := "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or log in with `aws sso login`"
	if s.why != "" {
		advice = s.why + ": " + advice
	}
	return s.keys != nil, advice
}

func (s *s3) lacksParts(*statusError) bool { return false }

// moved takes the region that an answer names.
func (s *s3) moved(e *statusError) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endpoint != nil || e.region == "" || e.region == s.region {
		return false
	}
	s.region = e.region
	return true
}

func (s *s3) where() (base string, region string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endpoint != nil {
		return s.endpoint.JoinPath(s.bucket).String(), s.region
	}
	domain := awsDomain(s.region)
	if strings.Contains(s.bucket, ".") { // no certificate is for such a host
		return "https://s3." + s.region + "." + domain + "/" + s.bucket, s.region
	}
	return "https://" + s.bucket + ".s3." + s.region + "." + domain, s.region
}

// sign signs for the store's own hosts. What is sent is named by its hash.
func (s *s3) sign(r *http.Request) error {
	host := r.URL.Hostname()
	own := strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
	if s.endpoint != nil {
		own = r.URL.Scheme == s.endpoint.Scheme && r.URL.Host == s.endpoint.Host
	}
	if s.keys == nil || !own {
		return nil
	}
	keys, err := s.keys.Retrieve(r.Context())
	if err != nil {
		return errors.New("credentials: " + words(err.Error()))
	}
	if r.Header.Get("X-Amz-Content-Sha256") == "" {
		r.Header.Set("X-Amz-Content-Sha256", nothing)
	}
	_, region := s.where()
	r.Header.Del("Accept-Encoding") // which proxies change
	defer r.Header.Set("Accept-Encoding", "identity")
	return s.signer.SignHTTP(r.Context(), keys, r, r.Header.Get("X-Amz-Content-Sha256"), "s3", region, time.Now())
}

var nothing = hex.EncodeToString(sha256.New().Sum(nil))

func (s *s3) digest() hash.Hash { return sha256.New() }

func (s *s3) listing(prefix string, deep bool, page string) request {
	q := url.Values{"list-type": {"2"}, "prefix": {prefix}, "encoding-type": {"url"}}
	if !deep {
		q.Set("delimiter", "/")
	}
	if page != "" {
		q.Set("continuation-token", page)
	}
	base, _ := s.where()
	return request{address: base + "?" + q.Encode()}
}

func (s *s3) listed(text []byte) (some []object, next string, err error) {
	var list struct {
		XMLName  xml.Name `xml:"ListBucketResult"`
		Contents []struct {
			Key  string
			Size int64
			ETag string
		}
		EncodingType          string
		IsTruncated           bool
		NextContinuationToken string
	}
	if err := xml.Unmarshal(text, &list); err != nil {
		return nil, "", err
	}
	for _, one := range list.Contents {
		if list.EncodingType == "url" {
			if one.Key, err = url.QueryUnescape(one.Key); err != nil {
				return nil, "", err
			}
		}
		some = append(some, object{one.Key, one.Size, one.ETag})
	}
	if list.IsTruncated {
		next = list.NextContinuationToken
	}
	return some, next, nil
}

func (s *s3) at(key, query string) string {
	base, _ := s.where()
	return base + "/" + escape(key, true) + query
}

func (s *s3) reading(o object) request {
	return request{address: s.at(o.key, ""), header: http.Header{"If-Match": {o.version}}}
}

func (s *s3) remove(key string) request {
	return request{method: http.MethodDelete, address: s.at(key, "")}
}

func (s *s3) put(key string, b *body, fresh bool) request {
	return request{method: http.MethodPut, address: s.at(key, ""), body: b, header: isNew(fresh, s.describe(b))}
}

func (s *s3) describe(b *body) http.Header {
	return http.Header{"X-Amz-Content-Sha256": {hex.EncodeToString(b.sum)}}
}

// isNew adds that nothing must be there.
func isNew(fresh bool, h http.Header) http.Header {
	if fresh {
		h.Set("If-None-Match", "*")
	}
	return h
}

func (s *s3) begin(key string) (request, bool) {
	return request{method: http.MethodPost, address: s.at(key, "?uploads=")}, true
}

// begun is the name of an upload in parts.
func (s *s3) begun(text []byte) (id string, err error) {
	var result struct{ UploadId string }
	if err := xml.Unmarshal(text, &result); err != nil || result.UploadId == "" {
		return "", errors.New("the store gave no name to an upload")
	}
	return result.UploadId, nil
}

func (s *s3) part(key, id string, n int, b *body) request {
	q := "?partNumber=" + strconv.Itoa(n) + "&uploadId=" + url.QueryEscape(id)
	return request{method: http.MethodPut, address: s.at(key, q), body: b, header: s.describe(b)}
}

func (s *s3) complete(key, id string, tags []string, fresh bool) request {
	b := hashed(s, partList(tags))
	return request{method: http.MethodPost, address: s.at(key, "?uploadId="+url.QueryEscape(id)), body: b, header: isNew(fresh, s.describe(b)), patience: putTogether}
}

// putTogether is how long a store may take to make one object of its parts.
const putTogether = 5 * time.Minute

// partList is the text that puts parts together.
func partList(tags []string) []byte {
	var text strings.Builder
	text.WriteString("<CompleteMultipartUpload>")
	for i, tag := range tags {
		fmt.Fprintf(&text, "<Part><PartNumber>%d</PartNumber><ETag>", i+1)
		xml.EscapeText(&text, []byte(tag))
		text.WriteString("</ETag></Part>")
	}
	text.WriteString("</CompleteMultipartUpload>")
	return []byte(text.String())
}

func (s *s3) abort(key, id string) (request, bool) {
	return request{method: http.MethodDelete, address: s.at(key, "?uploadId="+url.QueryEscape(id))}, true
}
