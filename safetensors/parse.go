package safetensors

import (
	"math"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// parser reads the JSON of a header. It accepts only the structure of headers: it does
// not recurse, and it refuses anything else at its first byte. encoding/json would be
// several times slower, silently keep the last of duplicate keys, and repair invalid
// UTF-8.
type parser struct {
	src  string // valid UTF-8; names are slices of it
	pos  int
	dims []int // backing array of all shapes
	last []int // shape of the previous tensor
}

// Fields of a tensor's object.
const (
	fieldDtype = 1 << iota
	fieldShape
	fieldOffsets
)

// parseHeader fills the tensors of h, in the order of src, and its metadata.
func parseHeader(src string, h *Header) error {
	const perTensor = 96 // bytes of JSON that a tensor takes, roughly
	tensors := len(src)/perTensor + 1
	p := &parser{src: src, dims: make([]int, 0, min(2*tensors, 1024))}
	h.Tensors = make([]Tensor, 0, tensors)
	if err := p.expect('{', "an object"); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := p.next('}', first)
		if err != nil {
			return err
		}
		if !more {
			return p.end()
		}
		if err := p.entry(h); err != nil {
			return err
		}
	}
}

// entry reads one member of the header: the metadata or a tensor.
func (p *parser) entry(h *Header) error {
	key, err := p.key()
	if err != nil {
		return err
	}
	if key == metadataKey {
		if h.Metadata != nil {
			return p.errorf("duplicate key %q", metadataKey)
		}
		h.Metadata, err = p.metadata()
		return within(metadataKey, err)
	}
	t, err := p.tensor(key)
	if err != nil {
		return within("tensor "+quoted(key), err)
	}
	h.Tensors = append(h.Tensors, t)
	return nil
}

func within(where string, err error) error {
	if err == nil {
		return nil
	}
	return formatErrorf("%s: %w", where, err)
}

func (p *parser) metadata() (map[string]string, error) {
	if err := p.expect('{', "an object"); err != nil {
		return nil, err
	}
	metadata := map[string]string{}
	for first := true; ; first = false {
		more, err := p.next('}', first)
		if err != nil || !more {
			return metadata, err
		}
		key, err := p.key()
		if err != nil {
			return nil, err
		}
		if _, dup := metadata[key]; dup {
			return nil, p.errorf("duplicate key %s", quoted(key))
		}
		if metadata[key], err = p.text(); err != nil {
			return nil, within(quoted(key), err)
		}
	}
}

// tensor reads the object of a tensor and checks its fields.
func (p *parser) tensor(name string) (Tensor, error) {
	t := Tensor{Name: name}
	if err := p.fields(&t); err != nil {
		return Tensor{}, err
	}
	want, err := ByteSize(t.Dtype, t.Shape)
	if err != nil {
		return Tensor{}, err
	}
	if t.Size != want {
		return Tensor{}, formatErrorf("data_offsets span %d bytes, but shape %s of %s takes %d",
			t.Size, shapeText(t.Shape), t.Dtype, want)
	}
	return t, nil
}

func (p *parser) fields(t *Tensor) error {
	if err := p.expect('{', "an object"); err != nil {
		return err
	}
	seen := 0
	for first := true; ; first = false {
		more, err := p.next('}', first)
		if err != nil {
			return err
		}
		if !more {
			return missing(seen)
		}
		field, err := p.field(t)
		if err != nil {
			return err
		}
		if seen&field != 0 {
			return p.errorf("duplicate field %q", fieldName(field))
		}
		seen |= field
	}
}

// field reads one field into t and returns which one it was.
func (p *parser) field(t *Tensor) (int, error) {
	key, err := p.key()
	if err != nil {
		return 0, err
	}
	field := 0
	switch key {
	case "dtype":
		field, err = fieldDtype, p.dtype(t)
	case "shape":
		field, err = fieldShape, p.shape(t)
	case "data_offsets":
		field, err = fieldOffsets, p.offsets(t)
	default:
		return 0, p.errorf("unknown field %s", quoted(key))
	}
	return field, within(key, err)
}

func fieldName(field int) string {
	switch field {
	case fieldDtype:
		return "dtype"
	case fieldShape:
		return "shape"
	}
	return "data_offsets"
}

// missing returns an error unless all fields were seen.
func missing(seen int) error {
	for field := fieldDtype; field <= fieldOffsets; field <<= 1 {
		if seen&field == 0 {
			return formatErrorf("missing field %q", fieldName(field))
		}
	}
	return nil
}

func (p *parser) dtype(t *Tensor) error {
	name, err := p.text()
	if err != nil {
		return err
	}
	t.Dtype, err = ParseDtype(name)
	return err
}

func (p *parser) shape(t *Tensor) error {
	if err := p.expect('[', "a list"); err != nil {
		return err
	}
	start := len(p.dims)
	for first := true; ; first = false {
		more, err := p.next(']', first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		n, err := p.number()
		if err != nil {
			return err
		}
		p.dims = append(p.dims, int(n))
	}
	end := len(p.dims)
	t.Shape = p.dims[start:end:end]
	switch {
	case start == end:
		t.Shape = []int{}
	case slices.Equal(t.Shape, p.last): // neighbours often have the same shape
		t.Shape, p.dims = p.last, p.dims[:start]
	default:
		p.last = t.Shape
	}
	return nil
}

func (p *parser) offsets(t *Tensor) error {
	if err := p.expect('[', "a list"); err != nil {
		return err
	}
	begin, err := p.number()
	if err != nil {
		return err
	}
	if err := p.expect(',', "',' and a second number"); err != nil {
		return err
	}
	end, err := p.number()
	if err != nil {
		return err
	}
	if err := p.expect(']', "']' after two numbers"); err != nil {
		return err
	}
	if end < begin {
		return p.errorf("end %d is before begin %d", end, begin)
	}
	t.Offset, t.Size = begin, end-begin
	return nil
}

// next moves to the next element of an object or a list; it returns false at the end.
func (p *parser) next(closing byte, first bool) (bool, error) {
	if p.accept(closing) {
		return false, nil
	}
	if !first && !p.accept(',') {
		return false, p.unexpected("',' or '" + string(closing) + "'")
	}
	return true, nil
}

// key reads a key and its colon.
func (p *parser) key() (string, error) {
	key, err := p.text()
	if err != nil {
		return "", err
	}
	return key, p.expect(':', "':'")
}

// number reads a whole number that is not negative.
func (p *parser) number() (int64, error) {
	p.space()
	start, n := p.pos, int64(0)
	for ; p.pos < len(p.src) && isDigit(p.src[p.pos]); p.pos++ {
		digit := int64(p.src[p.pos] - '0')
		if n > (math.MaxInt64-digit)/10 {
			return 0, p.errorf("number is too large")
		}
		n = n*10 + digit
	}
	switch c := p.peek(); {
	case p.pos == start && c == '-':
		return 0, p.errorf("number is negative")
	case p.pos == start:
		return 0, p.unexpected("a number")
	case p.src[start] == '0' && p.pos > start+1:
		return 0, p.errorf("number has leading zeros")
	case c == '.' || c == 'e' || c == 'E':
		return 0, p.errorf("number is not whole: a fraction or an exponent follows")
	}
	return n, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// text reads a string.
func (p *parser) text() (string, error) {
	if err := p.expect('"', "a string"); err != nil {
		return "", err
	}
	start := p.pos
	if err := p.plain(); err != nil {
		return "", err
	}
	if p.src[p.pos] == '\\' {
		return p.escaped(start)
	}
	p.pos++
	return p.src[start : p.pos-1], nil
}

// plain moves to the next quote or backslash of a string.
func (p *parser) plain() error {
	for i, rest := 0, p.src[p.pos:]; i < len(rest); i++ {
		c := rest[i]
		if c > '"' && c != '\\' || c == ' ' || c == '!' {
			continue
		}
		p.pos += i
		if c < ' ' {
			return p.errorf("control character %#02x in a string, want an escape", c)
		}
		return nil
	}
	p.pos = len(p.src)
	return p.errorf("string does not end")
}

// escaped reads the rest of a string that began at start, from its first backslash on.
func (p *parser) escaped(start int) (string, error) {
	var b strings.Builder
	for {
		b.WriteString(p.src[start:p.pos])
		p.pos++
		if p.src[p.pos-1] == '"' {
			return b.String(), nil
		}
		r, err := p.escape()
		if err != nil {
			return "", err
		}
		b.WriteRune(r)
		start = p.pos
		if err := p.plain(); err != nil {
			return "", err
		}
	}
}

// escape reads an escape after its backslash.
func (p *parser) escape() (rune, error) {
	const letters, meanings = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	c := p.peek()
	if c == 'u' {
		p.pos++
		return p.unicode()
	}
	i := strings.IndexByte(letters, c)
	if i < 0 {
		return 0, p.errorf("invalid escape in a string")
	}
	p.pos++
	return rune(meanings[i]), nil
}

// unicode reads the digits of a \u escape, and the second escape of a surrogate pair.
func (p *parser) unicode() (rune, error) {
	r, err := p.hex()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if !strings.HasPrefix(p.src[p.pos:], `\u`) {
		return 0, p.errorf("unpaired surrogate in a \\u escape")
	}
	p.pos += 2
	low, err := p.hex()
	if err != nil {
		return 0, err
	}
	pair := utf16.DecodeRune(r, low)
	if pair == utf8.RuneError {
		return 0, p.errorf("unpaired surrogate in a \\u escape")
	}
	return pair, nil
}

func (p *parser) hex() (rune, error) {
	var r rune
	for range 4 {
		digit := strings.IndexByte("0123456789abcdefABCDEF", p.peek())
		if digit < 0 {
			return 0, p.errorf("invalid \\u escape, want four hexadecimal digits")
		}
		if digit > 15 {
			digit -= 6 // upper case
		}
		r = r<<4 | rune(digit)
		p.pos++
	}
	return r, nil
}

// end makes sure that only padding follows.
func (p *parser) end() error {
	p.space()
	if p.pos < len(p.src) {
		return p.unexpected("only spaces after the JSON")
	}
	return nil
}

func (p *parser) space() {
	for p.pos < len(p.src) {
		switch p.src[p.pos] {
		case ' ', '\n', '\t', '\r':
			p.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.pos == len(p.src) {
		return 0
	}
	return p.src[p.pos]
}

func (p *parser) accept(c byte) bool {
	p.space()
	if p.pos == len(p.src) || p.src[p.pos] != c {
		return false
	}
	p.pos++
	return true
}

func (p *parser) expect(c byte, want string) error {
	if p.accept(c) {
		return nil
	}
	return p.unexpected(want)
}

func (p *parser) unexpected(want string) error {
	if p.pos == len(p.src) {
		return p.errorf("header ends too early, want %s", want)
	}
	return p.errorf("want %s, got %s", want, found(p.src[p.pos:]))
}

// found names the JSON value, or else the character, at the beginning of src.
func found(src string) string {
	switch c := src[0]; {
	case c == '"':
		return "a string"
	case c == '{':
		return "an object"
	case c == '[':
		return "a list"
	case c == '-' || isDigit(c):
		return "a number"
	case strings.HasPrefix(src, "null"):
		return "null"
	case strings.HasPrefix(src, "true"), strings.HasPrefix(src, "false"):
		return "a boolean"
	}
	r, _ := utf8.DecodeRuneInString(src)
	return quoted(string(r))
}

// errorf returns an [ErrFormat] with the current position.
func (p *parser) errorf(format string, args ...any) error {
	return formatErrorf(format+" (byte %d of the header)", append(args, p.pos)...)
}
