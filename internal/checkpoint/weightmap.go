package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// entry is one tensor of an index and the file that holds it.
type entry struct{ tensor, file string }

// indexParser reads the JSON of an index. It parses the index's own members and the
// weight map byte by byte, which is many times faster than encoding/json if there are
// many tensors; it leaves other members, which are short, to encoding/json.
type indexParser struct {
	src string // valid UTF-8; names are slices of it
	pos int
}

// members calls read at the value of every member of the next object.
func (p *indexParser) members(what string, read func(key string) error) error {
	if !p.accept('{') {
		return p.no(what)
	}
	for first := true; !p.accept('}'); first = false {
		if !first && !p.accept(',') {
			return p.malformed("',' or '}'")
		}
		key, err := p.text()
		if err != nil {
			return err
		}
		if !p.accept(':') {
			return p.malformed("':'")
		}
		if err := read(key); err != nil {
			return err
		}
	}
	return nil
}

// no returns the error that a value is not an object, or that there is no value.
func (p *indexParser) no(what string) error {
	if _, err := p.raw(); err != nil {
		return err
	}
	return errors.New(what + " is not an object")
}

// weightMap reads the file of each tensor, calls found for each file that differs from
// that of the tensor before, and returns the entries sorted.
func (p *indexParser) weightMap(found func(file string)) ([]entry, error) {
	entries := make([]entry, 0, len(p.src)/64+1)
	err := p.members("weight_map", func(tensor string) error {
		if p.peek() != '"' {
			if _, err := p.raw(); err != nil {
				return err
			}
			return fmt.Errorf("weight_map: tensor %.200q: file name is not a string", tensor)
		}
		file, err := p.text()
		if len(entries) > 0 && entries[len(entries)-1].file == file {
			file = entries[len(entries)-1].file // sharing one string makes comparing quick
		} else if err == nil {
			found(file)
		}
		entries = append(entries, entry{tensor, file})
		return err
	})
	if err != nil {
		return nil, err
	}
	byTensor := func(a, b entry) int { return strings.Compare(a.tensor, b.tensor) }
	if !slices.IsSortedFunc(entries, byTensor) {
		slices.SortFunc(entries, byTensor)
	}
	for i := 1; i < len(entries); i++ {
		if entries[i].tensor == entries[i-1].tensor {
			return nil, duplicate(entries[i].tensor)
		}
	}
	return entries, nil
}

func duplicate(key string) error { return fmt.Errorf("duplicate key %.200q", key) }

// raw reads any value and makes sure that it has no duplicate keys.
func (p *indexParser) raw() (json.RawMessage, error) {
	p.space()
	rest := p.src[p.pos:]
	dec := json.NewDecoder(strings.NewReader(rest))
	dec.UseNumber()
	if err := checkValue(dec, 0); err != nil {
		return nil, err
	}
	n := int(dec.InputOffset())
	p.pos += n
	return json.RawMessage(rest[:n]), nil
}

// text reads a string.
func (p *indexParser) text() (s string, err error) {
	if !p.accept('"') {
		return "", p.malformed("a string")
	}
	start, plain := p.pos, true
	for {
		p.pos += ordinary(p.src[p.pos:])
		if p.pos >= len(p.src) || p.src[p.pos] == '"' {
			break
		}
		if p.src[p.pos] != '\\' {
			return "", p.malformed("a string without control characters")
		}
		plain = false
		p.pos = min(p.pos+2, len(p.src))
	}
	if p.pos >= len(p.src) {
		p.pos = len(p.src)
		return "", p.malformed("the end of a string")
	}
	p.pos++
	if plain {
		return p.src[start : p.pos-1], nil
	}
	if err := json.Unmarshal([]byte(p.src[start-1:p.pos]), &s); err != nil {
		return "", malformed(err)
	}
	return s, nil
}

// ordinary counts the bytes before the first that ends a string or that needs special
// treatment in it.
func ordinary(s string) int {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == '"' || c == '\\' || c < ' ' {
			return i
		}
	}
	return len(s)
}

// end makes sure that nothing follows.
func (p *indexParser) end() error {
	if p.space(); p.pos < len(p.src) {
		return errors.New("malformed JSON: text after the value")
	}
	return nil
}

func (p *indexParser) space() {
	for p.pos < len(p.src) {
		switch p.src[p.pos] {
		case ' ', '\t', '\r', '\n':
			p.pos++
		default:
			return
		}
	}
}

// peek skips spaces and returns the next byte, 0 at the end.
func (p *indexParser) peek() byte {
	if p.space(); p.pos == len(p.src) {
		return 0
	}
	return p.src[p.pos]
}

func (p *indexParser) accept(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.pos++
	return true
}

func (p *indexParser) malformed(want string) error {
	if p.peek() == 0 {
		return fmt.Errorf("malformed JSON: unexpected EOF, want %s", want)
	}
	return fmt.Errorf("malformed JSON: byte %d: want %s", p.pos, want)
}
