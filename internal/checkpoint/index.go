package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxIndex is the most bytes that an index may have: that of a header, which
// says more about each tensor.
const maxIndex = 100_000_000

// index is the content of a *.safetensors.index.json.
type index struct {
	shardOf  map[string]string // tensor name to file name
	metadata map[string]json.RawMessage
}

// names are the tensors listed, ascending.
func (x *index) names() []string { return slices.Sorted(maps.Keys(x.shardOf)) }

// shards are the files listed, ascending.
func (x *index) shards() []string {
	return slices.Compact(slices.Sorted(maps.Values(x.shardOf)))
}

func readIndex(path string) (*index, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return nil, err
	}
	x, err := parseIndex(b)
	if err != nil {
		return nil, sourceErrorf("%s: %w", path, err)
	}
	return x, nil
}

// parseIndex reads an index and makes sure that it names plain files below its
// own folder.
func parseIndex(b []byte) (*index, error) {
	switch {
	case len(b) > maxIndex:
		return nil, fmt.Errorf("index is larger than %d bytes", maxIndex)
	case !utf8.Valid(b):
		return nil, errors.New("index is not valid UTF-8")
	}
	if err := checkJSON(b); err != nil {
		return nil, err
	}
	// Not a struct: its fields would match keys in any case.
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil || members == nil {
		return nil, errors.New("index is not an object")
	}
	x := &index{}
	if raw, ok := members["metadata"]; ok {
		if err := json.Unmarshal(raw, &x.metadata); err != nil {
			return nil, errors.New("metadata is not an object")
		}
	}
	raw, ok := members["weight_map"]
	if !ok {
		return nil, errors.New("weight_map is missing")
	}
	var err error
	x.shardOf, err = parseWeightMap(raw)
	return x, err
}

func parseWeightMap(raw json.RawMessage) (map[string]string, error) {
	var members map[string]any
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return nil, errors.New("weight_map is not an object")
	}
	if len(members) == 0 {
		return nil, errors.New("weight_map lists no tensors")
	}
	shardOf := make(map[string]string, len(members))
	for _, name := range slices.Sorted(maps.Keys(members)) {
		file, ok := members[name].(string)
		if !ok {
			return nil, fmt.Errorf("weight_map: tensor %.200q: file name is not a string", name)
		}
		if err := checkShardName(file); err != nil {
			return nil, fmt.Errorf("weight_map: tensor %.200q: %w", name, err)
		}
		shardOf[name] = file
	}
	return shardOf, nil
}

var driveLetter = regexp.MustCompile(`^[A-Za-z]:`)

// checkShardName refuses names that lead out of the folder on any system, or
// that could name one file in two ways.
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

// checkJSON makes sure that b is one JSON value without duplicate keys, of
// which encoding/json would silently keep the last.
func checkJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("malformed JSON: text after the value")
	}
	return nil
}

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
	key, _ := token.(string) // the decoder accepts no other
	if keys[key] {
		return fmt.Errorf("duplicate key %.200q", key)
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
