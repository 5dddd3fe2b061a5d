package remote

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/internal/watch"
)

// Limits of a request's tries.
const (
	// connections are as many as a run has to one host.
	connections = 32
	// most is for how long a request is tried without any byte arriving.
	most = 40 * time.Second
	// tries bounds how often that is.
	tries = 8
	// firstWait is doubled from try to try, up to longestWait.
	firstWait, longestWait = 250 * time.Millisecond, 8 * time.Second
	// redirects that are followed one after the other.
	redirects = 10
	// mostText bounds an answer that is read as a text.
	mostText = 64 << 20
)

// quiet is how long a server may say nothing, before or within an answer.
var quiet = 15 * time.Second

// client sends requests, again where a server is busy or a connection fails.
type client struct {
	http http.RoundTripper // which follows no redirects, and says nothing of where they lead
	// authorize adds what gives access to a request, where its host may see that.
	authorize func(*http.Request) error

	sleep func(ctx context.Context, d time.Duration) error
	now   func() time.Time
}

func newClient(authorize func(*http.Request) error) *client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	// One connection for each request that is under way: streams that share one by
	// HTTP/2 share its speed too.
	// (A clone has been made ready to ask for HTTP/2.)
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.TLSClientConfig, t.TLSNextProto, t.ForceAttemptHTTP2 = nil, nil, false
	t.MaxIdleConnsPerHost, t.MaxConnsPerHost = connections, connections
	t.TLSHandshakeTimeout = quiet
	t.DialContext = (&net.Dialer{Timeout: quiet}).DialContext
	t.DisableCompression = true // lengths are those of the file
	return &client{
		http:      t,
		authorize: authorize,
		sleep:     sleep, now: time.Now,
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// request is what is asked of a server.
type request struct {
	method   string // GET where it is ""
	address  string
	from, to int64 // the range of bytes, to exclusive; all where to is 0
	header   http.Header
	body     *body // nil for none
	patience time.Duration
}

// body is what a request brings along.
type body struct {
	io.ReaderAt
	size int64
	sum  []byte // by which a store sees that it arrived whole, nil for none
}

// hashed is a short body with the sum that a store wants.
func hashed(d dialect, text []byte) *body {
	b := textBody(text)
	h := d.digest()
	h.Write(text)
	b.sum = h.Sum(nil)
	return b
}

// textBody is a short one.
func textBody(text []byte) *body {
	return &body{ReaderAt: bytes.NewReader(text), size: int64(len(text))}
}

// statusError is an answer that is none of what was asked for.
type statusError struct {
	address string // without what it was signed with
	status  int
	code    string // of the hub's own words
	message string
	after   time.Duration
	region  string // where a bucket is
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%s: %d %s", e.address, e.status, http.StatusText(e.status))
	if e.message != "" {
		text += ": " + e.message
	}
	return text
}

// passing reports whether a server may answer otherwise a moment later.
func (e *statusError) passing() bool {
	return e.status == http.StatusTooManyRequests || e.status == http.StatusRequestTimeout || e.status >= 500 && e.status != http.StatusNotImplemented
}

// final is an error that no further try mends.
type final struct{ error }

func (e final) Unwrap() error { return e.error }

// attempts counts the tries of one request.
type attempts struct {
	*client
	ctx   context.Context
	begun time.Time
	n     int
}

func (c *client) attempts(ctx context.Context) *attempts {
	return &attempts{client: c, ctx: ctx, begun: c.now()}
}

// moved begins to count anew, since bytes arrived.
func (a *attempts) moved() { a.n, a.begun = 0, a.now() }

// again waits before the next try, and returns an error where there is to be none: err
// itself, with the number of tries.
func (a *attempts) again(err error) error {
	if ctx := a.ctx.Err(); ctx != nil {
		return ctx
	}
	var status *statusError
	if last := (final{}); errors.As(err, &last) {
		return last.error
	}
	if errors.As(err, &status) && !status.passing() {
		return err
	}
	a.n++
	wait := min(firstWait<<(a.n-1), longestWait)
	wait = wait/2 + rand.N(wait/2+1) // so that many that failed together do not come back together
	if status != nil {
		wait = max(wait, status.after)
	}
	switch spent := a.now().Sub(a.begun); {
	case status != nil && status.after > most:
		return fmt.Errorf("%w: it asks to come back after %v", err, status.after)
	case a.n >= tries || spent+wait > most:
		return fmt.Errorf("gave up after %d tries in %v: %w", a.n, spent.Round(time.Second), err)
	}
	watch.Of(a.ctx).Retried(why(err))
	return a.sleep(a.ctx, wait)
}

// text returns the whole of a small answer.
func (c *client) text(ctx context.Context, r request) ([]byte, http.Header, error) {
	for a := c.attempts(ctx); ; {
		begun := c.now()
		text, header, err := c.textOnce(ctx, r)
		if err == nil {
			return text, header, nil
		}
		if r.body != nil && a.n == 0 { // a large body may be on its way for long before it fails
			a.begun = c.now().Add(-min(c.now().Sub(begun), quiet))
		}
		if err := a.again(err); err != nil {
			return nil, nil, err
		}
	}
}

func (c *client) textOnce(ctx context.Context, r request) ([]byte, http.Header, error) {
	answer, err := c.get(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, mostText+1))
	if err == nil && len(text) > mostText {
		err = final{fmt.Errorf("%s: answers with more than %d bytes", answer.address, mostText)}
	}
	if err == nil && answer.ContentLength >= 0 && int64(len(text)) != answer.ContentLength {
		err = short(int64(len(text)), answer.ContentLength)
	}
	return text, answer.Header, err
}

// answer is a response whose body ends its request where it is silent too long.
type answer struct {
	*http.Response
	address string // that answered, without what it was signed with
	url     *url.URL
}

// get sends one request and follows redirects.
func (c *client) get(ctx context.Context, r request) (*answer, error) {
	at, err := url.Parse(r.address)
	if err != nil {
		return nil, final{err}
	}
	for range redirects {
		one, err := c.send(ctx, at, r)
		if err != nil {
			return nil, err
		}
		next, err := one.next()
		if err != nil || next == nil {
			return one, err
		}
		if at.Scheme == "https" && next.Scheme != "https" {
			return nil, final{fmt.Errorf("%s: redirects from https to %s", one.address, next.Scheme)}
		}
		at = next
	}
	return nil, final{fmt.Errorf("%s: more than %d redirects", unsigned(at), redirects)}
}

// next returns where an answer redirects to, nil for an answer that holds what was
// asked for, and an error for all others.
func (a *answer) next() (*url.URL, error) {
	switch {
	case a.StatusCode/100 == 2 && slices.Contains(packings, strings.ToLower(a.Header.Get("Content-Encoding"))):
		a.Body.Close()
		return nil, final{fmt.Errorf("%s: answers packed by %s, though it was asked not to", a.address, a.Header.Get("Content-Encoding"))}
	case a.StatusCode/100 == 2:
		return nil, nil
	case a.StatusCode/100 == 3 && a.Header.Get("Location") != "":
		a.Body.Close()
		next, err := a.url.Parse(a.Header.Get("Location"))
		if err != nil || next.Scheme != "http" && next.Scheme != "https" || next.Host == "" {
			return nil, final{fmt.Errorf("%s: redirects to no address", a.address)}
		}
		return next, nil
	}
	defer a.Body.Close()
	e := &statusError{
		address: a.address, status: a.StatusCode,
		code: a.Header.Get("X-Error-Code"), message: words(a.Header.Get("X-Error-Message")), after: retryAfter(a.Header),
		region: a.Header.Get("X-Amz-Bucket-Region"),
	}
	if e.code == "" && e.message == "" {
		text, _ := io.ReadAll(io.LimitReader(a.Body, 64<<10))
		e.code, e.message = reason(text, a.Header)
	}
	return nil, e
}

// packings are encodings whose lengths and ranges are not those of the file.
var packings = []string{"gzip", "x-gzip", "deflate", "compress", "br", "zstd"}

// reason is what the text of a store's error says: a word, and a sentence.
func reason(text []byte, h http.Header) (code, message string) {
	var inXML struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}
	var inJSON struct {
		Error struct {
			Message string
			Errors  []struct{ Reason string }
		}
	}
	switch {
	case xml.Unmarshal(text, &inXML) == nil:
		return inXML.Code, words(firstLine(inXML.Message))
	case json.Unmarshal(text, &inJSON) == nil && len(inJSON.Error.Errors) > 0:
		return inJSON.Error.Errors[0].Reason, words(inJSON.Error.Message)
	}
	return h.Get("X-Ms-Error-Code"), "" // of an answer without a text
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// words is a server's text in one line of moderate length.
func words(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > 200 {
		text = string(runes[:200]) + "…"
	}
	return text
}

// retryAfter is how long a server asks to wait.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 3600)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

func (c *client) send(ctx context.Context, at *url.URL, r request) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	clear := *at
	clear.User, clear.Fragment = nil, ""
	timer := time.AfterFunc(max(quiet, r.patience), func() { cancel(errQuiet) })
	one, err := http.NewRequestWithContext(ctx, cmp.Or(r.method, http.MethodGet), clear.String(), r.reader(timer))
	if err == nil {
		r.describe(one)
		err = c.authorize(one)
	}
	if err != nil {
		timer.Stop()
		cancel(nil)
		return nil, final{err}
	}
	watch.Of(ctx).Requested()
	got, err := c.http.RoundTrip(one)
	if err != nil {
		timer.Stop()
		if cause := context.Cause(ctx); cause == errQuiet {
			err = cause
		}
		cancel(nil)
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return nil, final{plain(at, err)}
		}
		return nil, plain(at, err)
	}
	timer.Reset(quiet)
	got.Body = &watched{ReadCloser: got.Body, cancel: cancel, timer: timer, ctx: ctx}
	return &answer{got, unsigned(at), at}, nil
}

// describe fills in all but the address and what gives access.
func (r request) describe(one *http.Request) {
	for name, values := range r.header {
		one.Header[name] = values
	}
	one.Header.Set("User-Agent", "tensorpress")
	one.Header.Set("Accept-Encoding", "identity")
	if r.to > 0 {
		one.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.from, r.to-1))
	}
	if r.body != nil {
		one.ContentLength = r.body.size
	}
}

// reader reads the body, for as long as the server takes it.
func (r request) reader(timer *time.Timer) io.Reader {
	if r.body == nil || r.body.size == 0 {
		return http.NoBody
	}
	return &sending{io.NewSectionReader(r.body, 0, r.body.size), timer, max(quiet, r.patience)}
}

// sending is a body on its way: a server that takes nothing for long is given up.
type sending struct {
	io.Reader
	timer *time.Timer
	quiet time.Duration
}

func (s *sending) Read(p []byte) (int, error) {
	s.timer.Reset(s.quiet)
	return s.Reader.Read(p)
}

// only is authorize for one host, which is the only one that sees the token, or the user.
func only(home *url.URL, user *url.Userinfo, token func() string) func(*http.Request) error {
	return func(r *http.Request) error {
		if r.URL.Scheme != home.Scheme || r.URL.Host != home.Host {
			return nil
		}
		if token != nil && token() != "" {
			r.Header.Set("Authorization", "Bearer "+token())
		} else if user != nil {
			password, _ := user.Password()
			r.SetBasicAuth(user.Username(), password)
		}
		return nil
	}
}

// plain is an error of a request with its address, without that's secrets.
func plain(at *url.URL, err error) error { return fmt.Errorf("%s: %w", unsigned(at), err) }

// unsigned is an address without what gives access to it: a user, a query.
func unsigned(at *url.URL) string {
	return (&url.URL{Scheme: at.Scheme, Host: at.Host, Path: at.Path, RawPath: at.RawPath}).String()
}

var errQuiet = fmt.Errorf("no byte came for %v", quiet)

// watched is a body that is given up when nothing comes for some time.
type watched struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
	timer  *time.Timer
	ctx    context.Context
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.timer.Reset(quiet)
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(w.ctx); cause == errQuiet {
			err = cause
		}
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.cancel(nil)
	return err
}
