package remote

import (
	"context"
	"encoding/xml"
	"net/url"
	"time"
)

// A process that is killed leaves uploads in parts, of which no reader sees anything and
// which cost until they are given up. Those of an output's own files are given up once that
// is in place: of what keeps its finished files all, since whoever is still at one of them
// does what is done; of any other those that nobody can be at.

// forsaken is how long after its begin nobody is at an upload any more.
const forsaken = 24 * time.Hour

// begunUpload is an upload in parts that a store lists.
type begunUpload struct {
	key, id string
	at      time.Time
}

// lister is a store that keeps uploads until they are given up, and lists them.
type lister interface {
	// uploads asks for those whose keys begin with prefix, after one of a list before.
	uploads(prefix string, after uploadMark) request
}

// uploadMark is where a part of a list ends, the zero value where there is nothing left.
type uploadMark struct{ key, id string }

// parseUploads reads the answer, which is the same of Amazon's store and Google's.
func parseUploads(text []byte) (some []begunUpload, next uploadMark, err error) {
	var list struct {
		XMLName xml.Name `xml:"ListMultipartUploadsResult"`
		Upload  []struct {
			Key, UploadId string
			Initiated     time.Time
		}
		EncodingType       string
		IsTruncated        bool
		NextKeyMarker      string
		NextUploadIdMarker string
	}
	if err := xml.Unmarshal(text, &list); err != nil {
		return nil, next, err
	}
	plain := func(key string) string {
		if list.EncodingType != "url" {
			return key
		}
		decoded, e := url.QueryUnescape(key)
		if e != nil {
			err = e
		}
		return decoded
	}
	for _, one := range list.Upload {
		some = append(some, begunUpload{plain(one.Key), one.UploadId, one.Initiated})
	}
	if list.IsTruncated {
		next = uploadMark{plain(list.NextKeyMarker), list.NextUploadIdMarker}
	}
	return some, next, err
}

// giveUpForsaken gives up uploads of some keys that were begun so long ago, or ever. What
// does not go well is no error of an output that is in place: the bucket's rules may do it.
func (o *storeOutput) giveUpForsaken(ctx context.Context, keys map[string]bool, since time.Duration) {
	l, ok := o.dialect.(lister)
	if !ok || len(keys) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, clearing/3)
	defer cancel()
	prefix := o.key
	if o.of.Folder && prefix != "" {
		prefix += "/"
	}
	var found []begunUpload
	for mark, first := (uploadMark{}), true; first || mark != (uploadMark{}); first = false {
		text, _, err := o.text(ctx, l.uploads(prefix, mark))
		if err != nil {
			return
		}
		some, next, err := parseUploads(text)
		if err != nil || next == mark && next != (uploadMark{}) {
			return
		}
		found, mark = append(found, some...), next
	}
	for _, u := range found {
		if !keys[u.key] || since > 0 && time.Since(u.at) < since {
			continue
		}
		if r, ok := o.abort(u.key, u.id); ok {
			o.text(ctx, r)
		}
	}
}

func (s *s3) uploads(prefix string, after uploadMark) request {
	base, _ := s.where()
	return request{address: base + "?" + uploadsQuery(prefix, after)}
}

func (g *gcs) uploads(prefix string, after uploadMark) request {
	return request{address: g.home.String() + "/" + g.bucket + "?" + uploadsQuery(prefix, after), header: g.now()}
}

func uploadsQuery(prefix string, after uploadMark) string {
	q := url.Values{"uploads": {""}, "prefix": {prefix}, "encoding-type": {"url"}}
	if after != (uploadMark{}) {
		q.Set("key-marker", after.key)
		q.Set("upload-id-marker", after.id)
	}
	return q.Encode()
}
