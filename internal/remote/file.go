package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// resolvedFor is how long the place that an address redirects to is used again. What
// stores sign is valid for longer.
const resolvedFor = 10 * time.Minute

// file is one that a server gives ranges of.
type file struct {
	*client
	pace    *pace
	ctx     context.Context // of the run
	address string
	size    int64
	// version is what the server called the content when the run began: an entity tag, or
	// the time of the last change. "" where it says neither, or where the address itself is
	// that of a content.
	version string
	host    string      // that called it so
	header  http.Header // of every request

	mu       sync.Mutex
	place    string // where the address redirected to, "" for not known
	placedAt time.Time
}

func (f *file) Size() int64     { return f.size }
func (f *file) Version() string { return f.version }

// ReadAt fills p from off on. What a broken connection has brought stays, and the rest
// is asked for again.
func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	if off >= f.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), f.size-off)]
	a := f.attempts(f.ctx)
	for n < len(want) {
		some, err := f.readOnce(want[n:], off+int64(n))
		if n += some; some > 0 {
			a.moved()
		}
		if err == nil {
			continue
		}
		if err := a.again(err); err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) readOnce(p []byte, off int64) (n int, err error) {
	began := f.pace.begin()
	defer func() { f.pace.end(n) }()
	place, kept := f.where()
	r := request{address: place, from: off, to: off + int64(len(p)), header: f.header}
	answer, err := f.get(f.ctx, r)
	var status *statusError
	if kept && errors.As(err, &status) && status.status/100 == 4 && !status.passing() { // what was signed is no longer valid
		f.forget()
		r.address = f.address
		answer, err = f.get(f.ctx, r)
	}
	if errors.As(err, &status) && (status.status == http.StatusRequestedRangeNotSatisfiable || status.status == http.StatusPreconditionFailed) {
		return 0, final{errChanged}
	}
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	f.pace.answered(began)
	f.keep(answer)
	if err := f.check(answer, r); err != nil {
		return 0, err
	}
	n, err = io.ReadFull(answer.Body, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = short(int64(n), int64(len(p)))
	}
	return n, err
}

// check refuses an answer that is no such range of the file.
func (f *file) check(a *answer, r request) error {
	if a.StatusCode == http.StatusOK && r.from == 0 && r.to == f.size && a.ContentLength == f.size {
		return f.same(a)
	}
	if a.StatusCode != http.StatusPartialContent {
		return final{fmt.Errorf("%s: answers %d where a range of bytes was asked for: download the file, and name it", a.address, a.StatusCode)}
	}
	from, to, size, ok := contentRange(a.Header.Get("Content-Range"))
	switch {
	case !ok || from != r.from || to > r.to || to <= from:
		return fmt.Errorf("%s: answers with the range %q to bytes=%d-%d", a.address, words(a.Header.Get("Content-Range")), r.from, r.to-1)
	case size >= 0 && size != f.size:
		return final{errChanged}
	case a.ContentLength >= 0 && a.ContentLength != to-from:
		return fmt.Errorf("%s: answers with %d bytes for the range %d-%d", a.address, a.ContentLength, from, to-1)
	}
	return f.same(a)
}

// same compares what the server calls the content. Another host, to which the address
// redirects now, may call it otherwise.
func (f *file) same(a *answer) error {
	if f.version == "" || a.url.Host != f.host {
		return nil
	}
	if now := version(a.Header); now != "" && now != f.version {
		return final{errChanged}
	}
	return nil
}

// at reports whether the answer came from the address itself, not from where it
// redirects to.
func (a *answer) at(address string) bool { return a.url.String() == address }

// version is what a server calls a content.
func version(h http.Header) string {
	if tag := h.Get("ETag"); tag != "" {
		return strings.TrimPrefix(tag, "W/")
	}
	return h.Get("Last-Modified")
}

// contentRange parses "bytes 0-9/100"; to is exclusive, size -1 where it is unknown.
func contentRange(text string) (from, to, size int64, ok bool) {
	text, ok = strings.CutPrefix(text, "bytes ")
	span, all, ok2 := strings.Cut(text, "/")
	first, last, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, false
	}
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	size, err3 := strconv.ParseInt(all, 10, 64)
	if all == "*" {
		size, err3 = -1, nil
	}
	return from, to + 1, size, errors.Join(err1, err2, err3) == nil
}

// where returns the place to ask, and whether it is one that the address redirected to
// before.
func (f *file) where() (place string, kept bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.place != "" && f.now().Sub(f.placedAt) < resolvedFor {
		return f.place, true
	}
	return f.address, false
}

func (f *file) keep(a *answer) {
	if a.at(f.address) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if at := a.url.String(); f.place != at {
		f.place, f.placedAt = at, f.now()
	}
}

func (f *file) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.place = ""
}
