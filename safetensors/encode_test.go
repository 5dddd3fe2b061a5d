package safetensors_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

func TestNewHeaderRefuses(t *testing.T) {
	tensor := func(name string, d safetensors.Dtype, shape ...int) safetensors.Tensor {
		return safetensors.Tensor{Name: name, Dtype: d, Shape: shape}
	}
	const u8 = safetensors.U8
	half := math.MaxInt64 / 8
	tests := []struct {
		name     string
		tensors  []safetensors.Tensor
		metadata map[string]string
		want     string
	}{
		{"duplicate", []safetensors.Tensor{tensor("a", u8), tensor("a", safetensors.F32)}, nil, `duplicate tensor name "a"`},
		{"reserved", []safetensors.Tensor{tensor("__metadata__", u8)}, nil, `tensor name "__metadata__" is reserved`},
		{"name not UTF-8", []safetensors.Tensor{tensor("\xff", u8)}, nil, `tensor name "\xff" is not valid UTF-8`},
		{"no dtype", []safetensors.Tensor{tensor("a", 0)}, nil, `tensor "a": invalid dtype 0`},
		{"negative", []safetensors.Tensor{tensor("a", u8, -1)}, nil, `tensor "a": shape [-1] has a negative dimension`},
		{"half a byte", []safetensors.Tensor{tensor("a", safetensors.F4, 1)}, nil, `tensor "a": shape [1] of F4 takes 4 bits`},
		{"overflow", []safetensors.Tensor{tensor("a", u8, math.MaxInt)}, nil, `tensor "a": shape [9223372036854775807] of U8 overflows`},
		{"sum overflows", []safetensors.Tensor{
			tensor("a", u8, half), tensor("b", u8, half), tensor("c", u8, half), tensor("d", u8, half), tensor("e", u8, half),
			tensor("f", u8, half), tensor("g", u8, half), tensor("h", u8, half), tensor("i", u8, half),
		}, nil, `tensor "h": the file overflows`},
		{"metadata key not UTF-8", nil, map[string]string{"\xff": ""}, `metadata key "\xff": not valid UTF-8`},
		{"metadata not UTF-8", nil, map[string]string{"k": "\xff"}, `metadata key "k": not valid UTF-8`},
		{"above the cap", nil, map[string]string{"k": strings.Repeat("v", safetensors.MaxHeader)}, `header takes 100000032 bytes, want at most 100000000`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := safetensors.NewHeader(tt.tensors, tt.metadata)
			if !errors.Is(err, safetensors.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// The reference cannot write these.
func TestEncodeBeyondTheReference(t *testing.T) {
	tests := []struct {
		name     string
		tensors  []safetensors.Tensor
		metadata map[string]string
		want     string
	}{
		{"6-bit floats", []safetensors.Tensor{
			{Name: "a", Dtype: safetensors.F6_E2M3, Shape: []int{4}},
			{Name: "b", Dtype: safetensors.F6_E3M2, Shape: []int{2, 4}},
			{Name: "c", Dtype: safetensors.F4, Shape: []int{2}},
		}, nil, `{"b":{"dtype":"F6_E3M2","shape":[2,4],"data_offsets":[0,6]},` +
			`"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[6,9]},` +
			`"c":{"dtype":"F4","shape":[2],"data_offsets":[9,10]}}`},
		{"empty metadata alone", nil, map[string]string{}, `{"__metadata__":{}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := safetensors.NewHeader(tt.tensors, tt.metadata)
			if err != nil {
				t.Fatal(err)
			}
			got := h.Encode()
			if strings.TrimRight(string(got[8:]), " ") != tt.want {
				t.Errorf("got %s, want %s", got[8:], tt.want)
			}
			if int64(len(got)) != h.DataStart || len(got)%8 != 0 {
				t.Errorf("header has %d bytes, DataStart is %d", len(got), h.DataStart)
			}
		})
	}
}

func TestNewHeaderKeepsNothing(t *testing.T) {
	tensors := []safetensors.Tensor{{Name: "a", Dtype: safetensors.U8, Shape: []int{2}}, {Name: "b", Dtype: safetensors.F32}}
	metadata := map[string]string{"k": "v"}
	h, err := safetensors.NewHeader(tensors, metadata)
	if err != nil {
		t.Fatal(err)
	}
	want := string(h.Encode())
	if tensors[0].Name != "a" {
		t.Error("the argument was sorted")
	}
	tensors[0].Shape[0], metadata["k"] = 7, "w"
	if got := string(h.Encode()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestOffsets: offsets must come back to the tensors as they were given, or
// bodies would be written in each other's place.
func TestOffsets(t *testing.T) {
	tensors := []safetensors.Tensor{
		{Name: "b", Dtype: safetensors.U8, Shape: []int{3}}, {Name: "a", Dtype: safetensors.F32, Shape: []int{2}},
		{Name: "a2", Dtype: safetensors.U8, Shape: []int{}}, {Name: "b2", Dtype: safetensors.F32, Shape: []int{0}}, {Name: "a3", Dtype: safetensors.F32, Shape: []int{1, 1}},
	}
	h, err := safetensors.NewHeader(tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, given := range tensors {
		if own, ok := h.Lookup(given.Name); !ok || !reflect.DeepEqual(own, given) {
			t.Errorf("%s: placed %+v, the header has %+v", given.Name, given, own)
		}
	}
}

// TestEncodedSize: the length of a header is worked out before it is written,
// and must be that of its text to the byte, or bodies would not begin where
// their offsets say.
func TestEncodedSize(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	letters := []rune("ab\"\\\n\b\x01\x1fé€😀.")
	word := func() string {
		var b strings.Builder
		for range rng.IntN(9) {
			b.WriteRune(letters[rng.IntN(len(letters))])
		}
		return b.String()
	}
	dims := []int{0, 1, 9, 10, 99, 100, 12345}
	for i := range 2000 {
		h := new(safetensors.Header)
		for j := range rng.IntN(5) {
			shape := make([]int, rng.IntN(4))
			for k := range shape {
				shape[k] = dims[rng.IntN(len(dims))]
			}
			h.Tensors = append(h.Tensors, safetensors.Tensor{Name: word() + string(rune('a'+j)), Dtype: safetensors.BF16, Shape: shape})
		}
		if i%3 > 0 {
			h.Metadata = map[string]string{}
			for range rng.IntN(3) {
				h.Metadata[word()] = word()
			}
		}
		laid, err := safetensors.NewHeader(h.Tensors, h.Metadata)
		if err != nil {
			t.Fatal(err)
		}
		text := laid.Encode()
		padding := len(text) - len(bytes.TrimRight(text, " "))
		if int64(len(text)) != laid.DataStart || len(text)%8 != 0 || padding > 7 {
			t.Fatalf("%d bytes, %d of them padding, in place of %d: %s", len(text), padding, laid.DataStart, text)
		}
	}
}
