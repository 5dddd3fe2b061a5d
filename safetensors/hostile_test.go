package safetensors_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// fileOf is a file with that header text and n bytes of data.
func fileOf(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

func parse(b []byte) (*safetensors.Header, error) {
	return safetensors.ReadHeader(bytes.NewReader(b), int64(len(b)))
}

// one is a header of a tensor "a" with those fields in place of its own.
func one(fields string) string { return `{"a":{` + fields + `}}` }

// shaped is a header of one U8 tensor of two bytes with that text as its shape.
func shaped(shape string) string {
	return one(`"dtype":"U8","shape":` + shape + `,"data_offsets":[0,2]`)
}

// spanned is the same with that text as its offsets.
func spanned(offsets string) string {
	return one(`"dtype":"U8","shape":[2],"data_offsets":` + offsets)
}

const (
	valid  = `{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`
	member = `"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}`
)

func TestHostileHeaders(t *testing.T) {
	two := func(first, second string) string {
		return `{"a":{"dtype":"U8","shape":[2],"data_offsets":` + first + `},` +
			`"b":{"dtype":"U8","shape":[2],"data_offsets":` + second + `}}`
	}
	tests := []struct {
		name   string
		header string
		data   int // bytes of data
		want   string
	}{
		{"empty", ``, 0, `header is empty`},
		{"not an object", `[]`, 0, `header starts with "[", want '{'`},
		{"leading space", ` ` + valid, 2, `header starts with " ", want '{'`},
		{"byte order mark", "\ufeff" + valid, 2, `want '{'`},
		{"invalid UTF-8", "{\"\xff\":{}}", 0, `header is not valid UTF-8`},
		{"encoded surrogate", "{\"\xed\xa0\x80\":{}}", 0, `header is not valid UTF-8`},
		{"trailing text", valid + `x`, 2, `want only spaces after the JSON, got "x"`},
		{"trailing object", valid + ` {}`, 2, `want only spaces after the JSON, got an object`},
		{"trailing zero", valid + "\x00", 2, `want only spaces after the JSON, got "\x00"`},
		{"ends in an object", valid[:len(valid)-1], 2, `header ends too early, want ',' or '}'`},
		{"ends in a string", `{"a`, 0, `string does not end`},
		{"ends in an escape", `{"a\`, 0, `invalid escape in a string`},
		{"ends in a unicode escape", `{"a\u00`, 0, `invalid \u escape, want four hexadecimal digits`},
		{"ends in a number", `{"a":{"shape":[1`, 0, `header ends too early, want ',' or ']'`},
		{"ends before a value", `{"a":`, 0, `tensor "a": header ends too early, want an object`},
		{"trailing comma", valid[:len(valid)-1] + `,}`, 2, `want a string, got "}"`},
		{"leading comma", `{,` + member + `}`, 2, `want a string, got ","`},
		{"comma missing", `{` + member + ` ` + member + `}`, 2, `want ',' or '}', got a string`},
		{"colon missing", `{"a"{}}`, 0, `want ':', got an object`},
		{"key not a string", `{a:{}}`, 0, `want a string, got "a"`},
		{"comment", `{/**/}`, 0, `want a string, got "/"`},

		{"raw control character", "{\"\x01\":{}}", 0, `control character 0x01 in a string`},
		{"unknown escape", `{"\x":{}}`, 0, `invalid escape in a string`},
		{"escape without digits", `{"\uzzzz":{}}`, 0, `invalid \u escape`},
		{"escape with a control character", "{\"\\u000\x11\":{}}", 0, `invalid \u escape`},
		{"high surrogate alone", `{"\ud800":{}}`, 0, `unpaired surrogate`},
		{"low surrogate alone", `{"\udc00":{}}`, 0, `unpaired surrogate`},
		{"two high surrogates", `{"\ud800\ud800":{}}`, 0, `unpaired surrogate`},
		{"high surrogate and a letter", `{"\ud800\u0041":{}}`, 0, `unpaired surrogate`},

		{"duplicate tensor", `{` + member + `,` + member + `}`, 2, `tensor "a": begins at 0, want 2: overlaps tensor "a"`},
		{"duplicate tensor of no size", `{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0,
			`duplicate tensor name "a"`},
		{"duplicate metadata", `{"__metadata__":{},"__metadata__":{}}`, 0, `duplicate key "__metadata__"`},
		{"duplicate metadata key", `{"__metadata__":{"k":"1","k":"1"}}`, 0, `__metadata__: duplicate key "k"`},
		{"duplicate field", one(`"dtype":"U8","shape":[2],"dtype":"U8","data_offsets":[0,2]`), 2, `tensor "a": duplicate field "dtype"`},
		{"unknown field", one(`"dtype":"U8","shape":[2],"data_offsets":[0,2],"stride":[1]`), 2, `tensor "a": unknown field "stride"`},
		{"field in other case", one(`"Dtype":"U8"`), 2, `tensor "a": unknown field "Dtype"`},
		{"dtype missing", one(`"shape":[2],"data_offsets":[0,2]`), 2, `tensor "a": missing field "dtype"`},
		{"shape missing", one(`"dtype":"U8","data_offsets":[0,2]`), 2, `tensor "a": missing field "shape"`},
		{"offsets missing", one(`"dtype":"U8","shape":[2]`), 2, `tensor "a": missing field "data_offsets"`},

		{"tensor null", `{"a":null}`, 0, `tensor "a": want an object, got null`},
		{"tensor a list", `{"a":["U8",[2],[0,2]]}`, 2, `tensor "a": want an object, got a list`},
		{"metadata null", `{"__metadata__":null}`, 0, `__metadata__: want an object, got null`},
		{"metadata a number", `{"__metadata__":{"k":1}}`, 0, `__metadata__: "k": want a string, got a number`},
		{"metadata a boolean", `{"__metadata__":{"k":true}}`, 0, `__metadata__: "k": want a string, got a boolean`},
		{"metadata nested", `{"__metadata__":{"k":{}}}`, 0, `__metadata__: "k": want a string, got an object`},
		{"dtype a number", one(`"dtype":8`), 0, `tensor "a": dtype: want a string, got a number`},
		{"dtype unknown", one(`"dtype":"u8"`), 0, `tensor "a": dtype: unknown dtype "u8"`},
		{"shape a number", shaped(`2`), 2, `tensor "a": shape: want a list, got a number`},
		{"shape nested", shaped(`[[2]]`), 2, `tensor "a": shape: want a number, got a list`},
		{"deep", shaped(strings.Repeat(`[`, 1<<20)), 2, `tensor "a": shape: want a number, got a list`},
		{"deep header", strings.Repeat(`{"a":`, 1<<20), 2, `tensor "a": unknown field "a"`},
		{"shape of a string", shaped(`["2"]`), 2, `tensor "a": shape: want a number, got a string`},
		{"shape trailing comma", shaped(`[2,]`), 2, `tensor "a": shape: want a number, got "]"`},
		{"float", shaped(`[2.0]`), 2, `tensor "a": shape: number is not whole`},
		{"exponent", shaped(`[2e0]`), 2, `tensor "a": shape: number is not whole`},
		{"negative", shaped(`[-2]`), 2, `tensor "a": shape: number is negative`},
		{"negative zero", shaped(`[-0]`), 2, `tensor "a": shape: number is negative`},
		{"leading zero", shaped(`[02]`), 2, `tensor "a": shape: number has leading zeros`},
		{"plus sign", shaped(`[+2]`), 2, `tensor "a": shape: want a number, got "+"`},
		{"not a number", shaped(`[NaN]`), 2, `tensor "a": shape: want a number, got "N"`},
		{"number above int64", shaped(`[9223372036854775808]`), 2, `tensor "a": shape: number is too large`},
		{"number above uint64", shaped(`[18446744073709551618]`), 2, `tensor "a": shape: number is too large`},
		{"shape overflows", shaped(`[4294967296,4294967296]`), 2, `tensor "a": shape [4294967296 4294967296] of U8 overflows`},
		{"shape overflows beside a zero", shaped(`[0,4294967296,4294967296]`), 2, `of U8 overflows`},
		{"bits overflow", shaped(`[1152921504606846976]`), 2, `tensor "a": shape [1152921504606846976] of U8 overflows`},
		{"half a byte", one(`"dtype":"F4","shape":[3],"data_offsets":[0,2]`), 2,
			`tensor "a": shape [3] of F4 takes 12 bits, not a whole number of bytes`},
		{"three quarters of a byte", one(`"dtype":"F6_E2M3","shape":[],"data_offsets":[0,1]`), 1,
			`tensor "a": shape [] of F6_E2M3 takes 6 bits, not a whole number of bytes`},

		{"offsets of one", spanned(`[0]`), 2, `tensor "a": data_offsets: want ',' and a second number, got "]"`},
		{"offsets of three", spanned(`[0,2,4]`), 2, `tensor "a": data_offsets: want ']' after two numbers, got ","`},
		{"offsets of none", spanned(`[]`), 2, `tensor "a": data_offsets: want a number, got "]"`},
		{"offsets null", spanned(`null`), 2, `tensor "a": data_offsets: want a list, got null`},
		{"offsets backwards", spanned(`[2,0]`), 2, `tensor "a": data_offsets: end 0 is before begin 2`},
		{"offset negative", spanned(`[-1,1]`), 2, `tensor "a": data_offsets: number is negative`},
		{"offset float", spanned(`[0,2.]`), 2, `tensor "a": data_offsets: number is not whole`},
		{"offset overflows", spanned(`[0,9223372036854775808]`), 2, `tensor "a": data_offsets: number is too large`},
		{"span too short", spanned(`[0,1]`), 1, `tensor "a": data_offsets span 1 bytes, but shape [2] of U8 takes 2`},
		{"span too long", spanned(`[0,9223372036854775807]`), 2, `but shape [2] of U8 takes 2`},
		{"first not at zero", spanned(`[1,3]`), 3, `tensor "a": first offset is 1, want 0`},
		{"gap", two(`[0,2]`, `[3,5]`), 5, `tensor "b": begins at 3, want 2: 1 bytes belong to no tensor`},
		{"overlap", two(`[0,2]`, `[1,3]`), 3, `tensor "b": begins at 1, want 2: overlaps tensor "a"`},
		{"same place", two(`[0,2]`, `[0,2]`), 2, `tensor "b": begins at 0, want 2: overlaps tensor "a"`},
		{"truncated data", valid, 1, `file is truncated: tensors take 2 bytes, the data section has 1`},
		{"no data", valid, 0, `file is truncated: tensors take 2 bytes, the data section has 0`},
		{"trailing data", valid, 5, `3 trailing bytes after the last tensor: tensors take 2 bytes, the data section has 5`},
		{"data without tensors", `{}`, 1, `1 trailing bytes`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantFormatError(t, fileOf(tt.header, tt.data), tt.want) })
	}
}

func wantFormatError(t *testing.T, file []byte, want string) {
	t.Helper()
	h, err := parse(file)
	if err == nil {
		t.Fatalf("got %v, want an error: %s", h.Tensors, want)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want %q", err, want)
	}
	if !errors.Is(err, safetensors.ErrFormat) {
		t.Errorf("%q is not ErrFormat", err)
	}
}

func TestHostileLengths(t *testing.T) {
	length := func(n uint64, rest string) []byte {
		return append(binary.LittleEndian.AppendUint64(nil, n), rest...)
	}
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"no bytes", nil, `file of 0 bytes is too short for a header, want at least 8`},
		{"seven bytes", make([]byte, 7), `file of 7 bytes is too short`},
		{"above the cap", length(100_000_001, `{}`), `header length is 100000001 bytes, want at most 100000000`},
		{"above int64", length(1<<63, `{}`), `header length is 9223372036854775808 bytes, want at most 100000000`},
		{"all ones", length(1<<64-1, `{}`), `want at most 100000000`},
		{"above the file", length(3, `{}`), `header length is 3 bytes, but only 2 follow: the file is truncated`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantFormatError(t, tt.file, tt.want) })
	}
}

func TestLongNamesAndShapesAreCutInMessages(t *testing.T) {
	for _, header := range []string{
		`{"` + strings.Repeat("n", 1<<20) + `":null}`,
		shaped(`[` + strings.Repeat(`2,`, 1<<10) + `2]`),
		one(`"dtype":"` + strings.Repeat("n", 1<<20) + `"`),
	} {
		_, err := parse(fileOf(header, 2))
		if err == nil || len(err.Error()) > 1000 {
			t.Errorf("got an error of %d bytes", len(err.Error()))
		}
	}
}

func TestAcceptedHeaders(t *testing.T) {
	tests := []struct {
		name   string
		header string
		data   int
		names  []string // in the order of the file
	}{
		{"nothing", `{}`, 0, nil},
		{"padding", valid + "  \n\t\r ", 2, []string{"a"}},
		{"spaces within", "{ \"a\" :\n{\"dtype\" : \"U8\",\t\"shape\" : [ 2 ] , \"data_offsets\" : [ 0 , 2 ] } }", 2, []string{"a"}},
		{"fields in another order", one(`"data_offsets":[0,2],"shape":[2],"dtype":"U8"`), 2, []string{"a"}},
		{"escapes", strings.Replace(valid, `"a"`, `"\u0061\/\uD83D\ude00\n\"\\"`, 1), 2, []string{"a/😀\n\"\\"}},
		{"escaped zero", strings.Replace(valid, `"a"`, `"\u0000"`, 1), 2, []string{"\x00"}},
		{"escaped field names", one(`"\u0064type":"U8","shape":[2],"data_offsets":[0,2]`), 2, []string{"a"}},
		{"no name", strings.Replace(valid, `"a"`, `""`, 1), 2, []string{""}},
		{"metadata last", `{` + member + `,"__metadata__":{}}`, 2, []string{"a"}},
		{"tensors not in file order",
			`{"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},` + member + `}`, 4, []string{"a", "b"}},
		{"shared offsets", `{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},` +
			`"z":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"y":{"dtype":"F64","shape":[2,0],"data_offsets":[0,0]},` +
			`"e":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}`, 1, []string{"z", "y", "b", "e"}},
		{"scalar", one(`"dtype":"F64","shape":[],"data_offsets":[0,8]`), 8, []string{"a"}},
		{"sub-byte", one(`"dtype":"F6_E3M2","shape":[4],"data_offsets":[0,3]`), 3, []string{"a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := parse(fileOf(tt.header, tt.data))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, tensor := range h.Tensors {
				names = append(names, tensor.Name)
				if got, ok := h.Lookup(tensor.Name); !ok || got.Offset != tensor.Offset {
					t.Errorf("Lookup(%q) = %v, %v", tensor.Name, got, ok)
				}
			}
			if !slices.Equal(names, tt.names) {
				t.Errorf("got %q, want %q", names, tt.names)
			}
			if want := int64(8 + len(tt.header) + tt.data); h.FileSize() != want {
				t.Errorf("FileSize() = %d, want %d", h.FileSize(), want)
			}
		})
	}
}

func TestMetadataAbsentAndEmptyDiffer(t *testing.T) {
	absent, err := parse(fileOf(`{}`, 0))
	if err != nil || absent.Metadata != nil {
		t.Errorf("got %v, %v, want nil", absent, err)
	}
	empty, err := parse(fileOf(`{"__metadata__":{}}`, 0))
	if err != nil || empty.Metadata == nil || len(empty.Metadata) != 0 {
		t.Errorf("got %v, %v, want an empty map", empty, err)
	}
}

// TestHeaderOfAnyLength: a header is the same whether it lies within what is read
// first or goes on behind it.
func TestHeaderOfAnyLength(t *testing.T) {
	want, err := parse(fileOf(valid, 2))
	if err != nil {
		t.Fatal(err)
	}
	for n := 4000; n < 4200; n++ {
		padded := strings.Repeat(" ", n-len(valid))
		for _, header := range []string{valid + padded, valid[:1] + padded + valid[1:]} {
			got, err := parse(fileOf(header, 2))
			if err != nil {
				t.Fatalf("header of %d bytes: %v", n, err)
			}
			if !slices.EqualFunc(got.Tensors, want.Tensors, same) || got.DataStart != int64(8+n) {
				t.Fatalf("header of %d bytes: got %v from %d", n, got.Tensors, got.DataStart)
			}
		}
	}
}

func same(a, b safetensors.Tensor) bool {
	return a.Name == b.Name && a.Dtype == b.Dtype && slices.Equal(a.Shape, b.Shape) && a.Offset == b.Offset && a.Size == b.Size
}

// broken fails reads from off on.
type broken struct {
	io.ReaderAt
	off int64
	err error
}

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off >= b.off {
		return 0, b.err
	}
	return b.ReaderAt.ReadAt(p, off)
}

func TestReadErrorsAreNotFormatErrors(t *testing.T) {
	file := fileOf(valid+strings.Repeat(" ", 10_000), 2) // more than one read takes
	errDisk := errors.New("disk on fire")
	for _, off := range []int64{0, 8} {
		for given, want := range map[error]error{errDisk: errDisk, io.EOF: io.ErrUnexpectedEOF} {
			_, err := safetensors.ReadHeader(broken{bytes.NewReader(file), off, given}, int64(len(file)))
			if !errors.Is(err, want) || errors.Is(err, safetensors.ErrFormat) {
				t.Errorf("reading from %d: got %v, want %v", off, err, want)
			}
		}
	}
}
