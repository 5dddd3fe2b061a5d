// Package storetest is a stand-in for object stores, for tests: on the loopback it answers
// as Amazon's, Google's and Azure's do to the requests that reading and writing a model
// takes, and fails as it is told to. No program imports it.
package storetest

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// What gives access to the stand-in for Amazon's store.
const (
	KeyID  = "AKIDTEST"
	Secret = "s3-secret-of-the-test"
)

// Store has one bucket, and the same objects for all three kinds of clients.
type Store struct {
	Bucket string
	// Page is how many objects a part of a list has, 0 for all.
	Page int
	// LeastPart is how small a part may be that is not the last.
	LeastPart int
	// NoParts says that it knows no uploads in parts.
	NoParts bool
	// NoConditions says that it knows no requests that hold only where nothing is.
	NoConditions bool
	server       *httptest.Server
	mu           sync.Mutex
	objects      map[string]*object
	uploads      map[string]*upload // of an id, or, where the store has none, of a key
	requests     int
	fail         func(n int, w http.ResponseWriter, r *http.Request) bool
	made         int
	log          []string
}

type object struct {
	data       []byte
	generation int
	blocks     map[string][]byte // of which Azure's store made it
}

func (o *object) tag() string { return fmt.Sprintf(`"%x-%d"`, md5.Sum(o.data), o.generation) }

type upload struct {
	key   string
	parts map[string][]byte
	begun time.Time
}

// New starts a store with a bucket. Close ends it.
func New(bucket string) *Store {
	s := &Store{Bucket: bucket, LeastPart: 5 << 20, objects: map[string]*object{}, uploads: map[string]*upload{}}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	return s
}

// Close ends the server.
func (s *Store) Close() { s.server.Close() }

// URL is where it is.
func (s *Store) URL() string { return s.server.URL }

// Environment is what leads tools to it, by the names of variables.
func (s *Store) Environment() map[string]string {
	return map[string]string{
		"AWS_ENDPOINT_URL": s.URL(), "AWS_ACCESS_KEY_ID": KeyID, "AWS_SECRET_ACCESS_KEY": Secret, "AWS_REGION": "us-east-1",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none",
		"AWS_PROFILE": "", "AWS_SESSION_TOKEN": "", "AWS_ENDPOINT_URL_S3": "",
		"STORAGE_EMULATOR_HOST": strings.TrimPrefix(s.URL(), "http://"), "GOOGLE_APPLICATION_CREDENTIALS": "",
		"AZURE_STORAGE_CONNECTION_STRING": "AccountName=account;AccountKey=c2VjcmV0;BlobEndpoint=" + s.URL() + "/account",
	}
}

// Fail has a function called with the number of each request, from 0, which may answer it
// otherwise; it reports whether it did. nil for none.
func (s *Store) Fail(f func(n int, w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Put puts an object there.
func (s *Store) Put(key string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(key, data)
}

func (s *Store) put(key string, data []byte) {
	s.made++
	s.objects[key] = &object{data: data, generation: s.made}
}

// Remove removes one.
func (s *Store) Remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
}

// Objects are all that a reader sees.
func (s *Store) Objects() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]byte{}
	for key, o := range s.objects {
		all[key] = o.data
	}
	return all
}

// Unfinished is the number of uploads in parts that were begun, and neither put together
// nor given up.
func (s *Store) Unfinished() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads)
}

// Forsake begins an upload in parts at a time, as a process that was killed then has.
func (s *Store) Forsake(key string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	s.uploads[fmt.Sprintf("id %d&", s.made)] = &upload{key, map[string][]byte{}, at}
}

// Forsaken are the keys of uploads in parts that were begun, and neither put together nor
// given up, ascending.
func (s *Store) Forsaken() (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, up := range s.uploads {
		keys = append(keys, up.key)
	}
	slices.Sort(keys)
	return keys
}

// Log are the methods and paths of the requests so far that changed what readers see, in
// their order.
func (s *Store) Log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// Requests is how many there were.
func (s *Store) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *Store) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := s.requests
	s.requests++
	fail := s.fail
	s.mu.Unlock()
	if fail != nil && fail(n, w, r) {
		return
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	a := &answering{Store: s, w: w, r: r, q: r.URL.Query(), text: text}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/")
	switch first, rest, _ := strings.Cut(path, "/"); first {
	case "storage", "download", "upload":
		a.google(path)
	case "account":
		a.azure(rest)
	default:
		a.amazon(path)
	}
}

// answering is one request under way.
type answering struct {
	*Store
	w    http.ResponseWriter
	r    *http.Request
	q    url.Values
	text []byte
}

// inXML refuses a request as Amazon's and Azure's stores do.
func (a *answering) inXML(status int, code string) {
	a.w.WriteHeader(status)
	fmt.Fprintf(a.w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>no %s\nmore</Message></Error>", code, code)
}

func (a *answering) amazon(path string) {
	google := a.r.Header.Get("Date") != ""
	bucket, rest, _ := strings.Cut(path, "/")
	key, _ := url.PathUnescape(rest)
	switch {
	case !google && a.r.Header.Get("Authorization") == "":
		a.inXML(403, "AccessDenied")
	case !google && !strings.Contains(a.r.Header.Get("Authorization"), "Credential="+KeyID+"/"):
		a.inXML(403, "InvalidAccessKeyId")
	case !google && !a.signed():
		a.inXML(403, "SignatureDoesNotMatch")
	case bucket != a.Bucket:
		a.inXML(404, "NoSuchBucket")
	case key == "" && a.q.Has("uploads"):
		a.listUploads()
	case key == "":
		a.listXML()
	case a.NoParts:
		a.inXML(400, "invalid")
	case a.q.Has("uploads"):
		a.made++
		id := fmt.Sprintf("id %d&", a.made)
		a.uploads[id] = &upload{key, map[string][]byte{}, time.Now()}
		fmt.Fprint(a.w, "<R><UploadId>")
		xml.EscapeText(a.w, []byte(id))
		fmt.Fprint(a.w, "</UploadId></R>")
	case a.q.Has("uploadId"):
		a.amazonParts(key)
	default:
		a.object(key)
	}
}

// signed checks the signature by making it again, and that the body is what it is of.
func (a *answering) signed() bool {
	given := a.r.Header.Get("Authorization")
	_, names, _ := strings.Cut(given, "SignedHeaders=")
	names, _, _ = strings.Cut(names, ",")
	again := a.r.Clone(a.r.Context())
	again.Header = http.Header{}
	again.URL.Scheme, again.URL.Host = "http", a.r.Host
	for name := range strings.SplitSeq(names, ";") {
		if v := a.r.Header.Get(name); v != "" && name != "host" && name != "content-length" {
			again.Header.Set(name, v)
		}
	}
	at, err := time.Parse("20060102T150405Z", a.r.Header.Get("X-Amz-Date"))
	if err != nil {
		return false
	}
	sum := sha256.Sum256(a.text)
	if a.r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) {
		return false
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	err = signer.SignHTTP(a.r.Context(), aws.Credentials{AccessKeyID: KeyID, SecretAccessKey: Secret}, again, a.r.Header.Get("X-Amz-Content-Sha256"), "s3", "us-east-1", at)
	return err == nil && again.Header.Get("Authorization") == given
}

func (a *answering) amazonParts(key string) {
	id := a.q.Get("uploadId")
	up := a.uploads[id]
	switch {
	case up == nil || up.key != key:
		a.inXML(404, "NoSuchUpload")
	case a.r.Method == http.MethodPut:
		if !a.arrived() {
			return
		}
		up.parts[a.q.Get("partNumber")] = a.text
		a.w.Header().Set("ETag", fmt.Sprintf(`"%x"`, md5.Sum(a.text)))
	case a.r.Method == http.MethodDelete:
		delete(a.uploads, id)
		a.w.WriteHeader(http.StatusNoContent)
	default:
		var list struct {
			Part []struct {
				PartNumber int
				ETag       string
			}
		}
		if xml.Unmarshal(a.text, &list) != nil || len(list.Part) != len(up.parts) {
			a.inXML(400, "MalformedXML")
			return
		}
		var all []byte
		for i, p := range list.Part {
			part := up.parts[strconv.Itoa(p.PartNumber)]
			if p.PartNumber != i+1 || p.ETag != fmt.Sprintf(`"%x"`, md5.Sum(part)) || i+1 < len(list.Part) && len(part) < a.LeastPart {
				a.inXML(400, "InvalidPart")
				return
			}
			all = append(all, part...)
		}
		if a.refused(key) {
			return
		}
		delete(a.uploads, id)
		a.change(key, all)
		fmt.Fprint(a.w, "\n<CompleteMultipartUploadResult/>")
	}
}

// arrived compares a body with the sums that came with it.
func (a *answering) arrived() bool {
	sum := md5.Sum(a.text)
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	crc.Write(a.text)
	for name, want := range map[string]string{
		"Content-MD5": base64.StdEncoding.EncodeToString(sum[:]), "X-Goog-Hash": "crc32c=" + base64.StdEncoding.EncodeToString(crc.Sum(nil)),
	} {
		if got := a.r.Header.Get(name); got != "" && got != want {
			a.inXML(400, "BadDigest")
			return false
		}
	}
	return true
}

// refused answers a request that is to hold only where nothing is.
func (a *answering) refused(key string) bool {
	fresh := a.r.Header.Get("If-None-Match") == "*" || a.r.Header.Get("X-Goog-If-Generation-Match") == "0" || a.q.Get("ifGenerationMatch") == "0"
	switch {
	case fresh && a.NoConditions:
		a.inXML(501, "NotImplemented")
		return true
	case fresh && a.objects[key] != nil:
		a.inXML(412, "PreconditionFailed")
		return true
	}
	return false
}

func (a *answering) change(key string, data []byte) {
	a.log = append(a.log, "PUT "+key)
	a.put(key, data)
}

// object answers to requests for a whole object.
func (a *answering) object(key string) {
	o := a.objects[key]
	switch a.r.Method {
	case http.MethodPut, http.MethodPost:
		if a.arrived() && !a.refused(key) {
			a.change(key, a.text)
			a.w.WriteHeader(http.StatusCreated)
		}
	case http.MethodDelete:
		if o == nil && a.r.Header.Get("X-Ms-Version") != "" {
			a.inXML(404, "BlobNotFound")
			return
		}
		a.log = append(a.log, "DELETE "+key)
		delete(a.objects, key)
		a.w.WriteHeader(http.StatusNoContent)
	default:
		if o == nil || a.q.Has("generation") && a.q.Get("generation") != strconv.Itoa(o.generation) {
			a.inXML(404, "NoSuchKey")
			return
		}
		if match := a.r.Header.Get("If-Match"); match != "" && match != o.tag() {
			a.inXML(412, "PreconditionFailed")
			return
		}
		a.w.Header().Set("ETag", o.tag())
		http.ServeContent(a.w, a.r, "", time.Time{}, bytes.NewReader(o.data))
	}
}

// some are the keys of a part of a list, and where it goes on.
func (a *answering) some(prefix, delimiter, page string) (keys []string, next string) {
	for key := range a.objects {
		if rest, ok := strings.CutPrefix(key, prefix); ok && key > page && (delimiter == "" || !strings.Contains(rest, delimiter)) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if a.Page > 0 && len(keys) > a.Page {
		keys = keys[:a.Page]
		next = keys[a.Page-1]
	}
	return keys, next
}

func (a *answering) listXML() {
	type content struct {
		Key  string
		Size int
		ETag string
	}
	type list struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		EncodingType          string
		IsTruncated           bool
		NextContinuationToken string
		Contents              []content
	}
	all := list{EncodingType: "url"}
	keys, next := a.some(a.q.Get("prefix"), a.q.Get("delimiter"), a.q.Get("continuation-token"))
	for _, key := range keys {
		all.Contents = append(all.Contents, content{url.QueryEscape(key), len(a.objects[key].data), a.objects[key].tag()})
	}
	all.IsTruncated, all.NextContinuationToken = next != "", next
	xml.NewEncoder(a.w).Encode(all)
}

// listUploads lists those in parts, by keys and then ids, as Amazon's store does.
func (a *answering) listUploads() {
	type entry struct {
		Key, UploadId, Initiated string
	}
	var all struct {
		XMLName                                         xml.Name `xml:"ListMultipartUploadsResult"`
		EncodingType, NextKeyMarker, NextUploadIdMarker string
		IsTruncated                                     bool
		Upload                                          []entry
	}
	all.EncodingType = "url"
	ids := slices.SortedFunc(maps.Keys(a.uploads), func(x, y string) int {
		return cmp.Or(cmp.Compare(a.uploads[x].key, a.uploads[y].key), cmp.Compare(x, y))
	})
	key, id := a.q.Get("key-marker"), a.q.Get("upload-id-marker")
	for _, one := range ids {
		up := a.uploads[one]
		if !strings.HasPrefix(up.key, a.q.Get("prefix")) || cmp.Or(cmp.Compare(up.key, key), cmp.Compare(one, id)) <= 0 {
			continue
		}
		if a.Page > 0 && len(all.Upload) == a.Page {
			all.IsTruncated = true
			break
		}
		all.Upload = append(all.Upload, entry{url.QueryEscape(up.key), one, up.begun.UTC().Format("2006-01-02T15:04:05.000Z")})
		all.NextKeyMarker, all.NextUploadIdMarker = url.QueryEscape(up.key), one
	}
	xml.NewEncoder(a.w).Encode(all)
}

func (a *answering) google(path string) {
	path, _, _ = strings.Cut(path, "?")
	_, path, _ = strings.Cut(path, "storage/v1/b/")
	bucket, key, _ := strings.Cut(path, "/o")
	key, _ = url.PathUnescape(strings.TrimPrefix(key, "/"))
	switch {
	case bucket != a.Bucket:
		a.w.WriteHeader(http.StatusNotFound)
		json.NewEncoder(a.w).Encode(map[string]any{"error": map[string]any{"code": 404, "message": "The specified bucket does not exist.", "errors": []any{map[string]string{"reason": "notFound"}}}})
	case key != "":
		a.object(key)
	case a.r.Method == http.MethodPost:
		a.object(a.q.Get("name"))
	default:
		items := []map[string]string{}
		keys, next := a.some(a.q.Get("prefix"), a.q.Get("delimiter"), a.q.Get("pageToken"))
		for _, key := range keys {
			o := a.objects[key]
			items = append(items, map[string]string{"name": key, "size": strconv.Itoa(len(o.data)), "generation": strconv.Itoa(o.generation)})
		}
		json.NewEncoder(a.w).Encode(map[string]any{"items": items, "nextPageToken": next})
	}
}

func (a *answering) azure(path string) {
	container, rest, _ := strings.Cut(path, "/")
	key, _ := url.PathUnescape(rest)
	switch {
	case !strings.HasPrefix(a.r.Header.Get("Authorization"), "SharedKey account:") && a.q.Get("sig") == "":
		a.w.Header().Set("X-Ms-Error-Code", "NoAuthenticationInformation")
		a.w.WriteHeader(http.StatusUnauthorized)
	case container != a.Bucket:
		a.inXML(404, "ContainerNotFound")
	case key == "":
		a.listAzure()
	case a.q.Get("comp") == "block":
		if !a.arrived() {
			return
		}
		if a.uploads[key] == nil {
			a.uploads[key] = &upload{key, map[string][]byte{}, time.Now()}
		}
		a.uploads[key].parts[a.q.Get("blockid")] = a.text
		a.w.WriteHeader(http.StatusCreated)
	case a.q.Get("comp") == "blocklist":
		var list struct{ Latest []string }
		if xml.Unmarshal(a.text, &list) != nil {
			a.inXML(400, "InvalidXmlDocument")
			return
		}
		var all []byte
		blocks := map[string][]byte{}
		for _, id := range list.Latest {
			block, ok := a.latest(key, id)
			if !ok {
				a.inXML(400, "InvalidBlockList")
				return
			}
			blocks[id], all = block, append(all, block...)
		}
		if a.refused(key) {
			return
		}
		delete(a.uploads, key) // with blocks that were not named
		a.change(key, all)
		a.objects[key].blocks = blocks
		a.w.WriteHeader(http.StatusCreated)
	default:
		a.object(key)
	}
}

// latest is a block as it came last, be it a part of an object by now or not.
func (a *answering) latest(key, id string) (block []byte, ok bool) {
	if up := a.uploads[key]; up != nil {
		if block, ok = up.parts[id]; ok {
			return block, ok
		}
	}
	if o := a.objects[key]; o != nil {
		block, ok = o.blocks[id]
	}
	return block, ok
}

func (a *answering) listAzure() {
	type blob struct {
		Name string
		Size int    `xml:"Properties>Content-Length"`
		Etag string `xml:"Properties>Etag"`
	}
	type list struct {
		XMLName    xml.Name `xml:"EnumerationResults"`
		Blobs      []blob   `xml:"Blobs>Blob"`
		NextMarker string
	}
	var all list
	keys, next := a.some(a.q.Get("prefix"), a.q.Get("delimiter"), a.q.Get("marker"))
	for _, key := range keys {
		all.Blobs = append(all.Blobs, blob{key, len(a.objects[key].data), strings.Trim(a.objects[key].tag(), `"`)})
	}
	all.NextMarker = next
	xml.NewEncoder(a.w).Encode(all)
}
