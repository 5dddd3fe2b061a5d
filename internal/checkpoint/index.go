package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// index is the content of a *.safetensors.index.json.
type index struct {
	entries  []entry // ascending by tensor
	metadata map[string]json.RawMessage
}

// readIndex reads the index. It calls found for each file as soon as the index names
// it, perhaps several times for one file, and even if the index later proves invalid.
func (c *Checkpoint) readIndex(found func(file string)) (*index, error) {
	path := c.beside(c.Index)
	f, err := c.Tree.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text := new(strings.Builder)
	text.Grow(int(min(f.Info.Size(), MaxText)))
	c.Witness.See(path, f.Info)
	if _, err := io.Copy(text, io.NewSectionReader(f.Sections, 0, MaxText+1)); err != nil {
		return nil, source.Named(path, err)
	}
	x, err := parseIndex(strings.TrimPrefix(text.String(), byteOrderMark), found)
	if err != nil {
		return nil, usage.SourceErrorf("%s: %w", path, err)
	}
	return x, nil
}

// byteOrderMark is what some editors write at the beginning of a text file.
const byteOrderMark = "\ufeff"

// parseIndex reads an index and makes sure that it names only files below its own
// folder. That holds for every name that found is called with, too.
func parseIndex(text string, found func(file string)) (*index, error) {
	switch {
	case len(text) > MaxText:
		return nil, fmt.Errorf("index is larger than %d bytes", MaxText)
	case !utf8.ValidString(text):
		return nil, errors.New("index is not valid UTF-8")
	}
	x := &index{}
	p := &indexParser{src: text}
	seen := map[string]bool{}
	err := p.members("index", func(key string) error {
		if seen[key] {
			return duplicate(key)
		}
		seen[key] = true
		return x.member(p, key, found)
	})
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return nil, err
	}
	if !seen["weight_map"] {
		return nil, errors.New("weight_map is missing")
	}
	return x, x.check()
}

// member reads one member of the index.
func (x *index) member(p *indexParser, key string, found func(file string)) (err error) {
	if key == "weight_map" {
		x.entries, err = p.weightMap(func(file string) {
			if checkShardName(file) == nil {
				found(file)
			}
		})
		return err
	}
	raw, err := p.raw()
	if err == nil && key == "metadata" && json.Unmarshal(raw, &x.metadata) != nil {
		err = errors.New("metadata is not an object")
	}
	return err
}

// check refuses an index that lists no tensors or that names files outside its folder.
func (x *index) check() error {
	if len(x.entries) == 0 {
		return errors.New("weight_map lists no tensors")
	}
	for i, e := range x.entries {
		if i > 0 && e.file == x.entries[i-1].file {
			continue
		}
		if err := checkShardName(e.file); err != nil {
			return fmt.Errorf("weight_map: tensor %.200q: %w", e.tensor, err)
		}
	}
	return nil
}

var driveLetter = regexp.MustCompile(`^[A-Za-z]:`)

// checkShardName refuses names that lead out of the folder on any system, and names of
// which two spellings could mean one file.
func checkShardName(file string) error {
	switch {
	case path.IsAbs(file), driveLetter.MatchString(file), strings.ContainsAny(file, "\\\x00"),
		!filepath.IsLocal(filepath.FromSlash(file)):
		return fmt.Errorf("file name %.200q leaves the folder of the index", file)
	case path.Clean(file) != file:
		return fmt.Errorf("file name %.200q is not a plain path", file)
	case !strings.HasSuffix(file, weightSuffix):
		return fmt.Errorf("file name %.200q does not end in %s", file, weightSuffix)
	}
	return nil
}

// checkValue makes sure that a value has no duplicate keys, because encoding/json would
// silently keep the last of them.
func checkValue(dec *json.Decoder, depth int) error {
	const deepest = 100
	if depth > deepest {
		return fmt.Errorf("malformed JSON: nested more than %d deep", deepest)
	}
	token, err := dec.Token()
	if err != nil {
		return malformed(err)
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	keys := map[string]bool{}
	for dec.More() {
		if open == '{' {
			if err := checkKey(dec, keys); err != nil {
				return err
			}
		}
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil { // the closing delimiter
		return malformed(err)
	}
	return nil
}

func checkKey(dec *json.Decoder, keys map[string]bool) error {
	token, err := dec.Token()
	if err != nil {
		return malformed(err)
	}
	key, _ := token.(string) // the decoder accepts only strings as keys
	if keys[key] {
		return duplicate(key)
	}
	keys[key] = true
	return nil
}

func malformed(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("malformed JSON: %w", err)
}
