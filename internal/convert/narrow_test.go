package convert_test

import (
	"encoding/binary"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestNarrowScales: scales that were saved as BF16 restore what the same numbers in
// F32 do, also where rows are rotated.
func TestNarrowScales(t *testing.T) {
	source := fixture.Written(t, []safetensors.Tensor{{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{160, 256}}})
	for _, o := range []tensorpress.Options{
		{Layer: tensorpress.Settings{Dtype: "int8_tensorwise"}}, {Layer: tensorpress.Settings{Dtype: "int8_tensorwise", ConvRot: new(true)}},
		{Layer: tensorpress.Settings{Dtype: "float8_e4m3fn"}}, {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn", Scale: "block", BlockSize: new(32)}},
	} {
		o.Preset = "none"
		path := fixture.Quantized(t, source, o)
		narrow, wide := filepath.Join(t.TempDir(), "narrow.safetensors"), filepath.Join(t.TempDir(), "wide.safetensors")
		rescaled(t, path, narrow, safetensors.BF16)
		rescaled(t, path, wide, safetensors.F32)
		if v, err := tensorpress.Verify(t.Context(), files.Dir(narrow), tensorpress.VerifyOptions{Source: files.Dir(source), MaxRelMSE: fixture.Ptr(0.01)}); err != nil || !v.OK {
			t.Fatalf("%v: %+v, %v", o.Layer, v, err)
		}
		if list := fixture.Differences(t, dequantizedPath(t, narrow), dequantizedPath(t, wide)); len(list) > 0 {
			t.Errorf("%v: %v", o.Layer, list)
		}
	}
}

func dequantizedPath(t *testing.T, path string) string {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "plain.safetensors")
	if _, err := tensorpress.Dequantize(t.Context(), files.Dir(path), files.Dir(dest), tensorpress.DequantizeOptions{Dtype: "f32", Threads: 2}); err != nil {
		t.Fatal(err)
	}
	return dest
}

// rescaled copies a file with its scales cut to BF16, and stored as that or as F32.
func rescaled(t *testing.T, from, to string, d safetensors.Dtype) {
	t.Helper()
	f, err := safetensors.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var tensors []safetensors.Tensor
	data := map[string][]byte{}
	for _, one := range f.Header().Tensors {
		raw := fixture.Body(t, from, one.Name)
		if one.Name == "a.weight_scale" {
			var cut []byte
			for i := 0; i < len(raw); i += 4 {
				bits := binary.LittleEndian.Uint32(raw[i:]) &^ 0xFFFF
				if d == safetensors.BF16 {
					cut = binary.LittleEndian.AppendUint16(cut, uint16(bits>>16))
				} else {
					cut = binary.LittleEndian.AppendUint32(cut, bits)
				}
			}
			raw, one.Dtype = cut, d
		}
		tensors = append(tensors, safetensors.Tensor{Name: one.Name, Dtype: one.Dtype, Shape: one.Shape})
		data[one.Name] = raw
	}
	if len(data["a.weight_scale"]) == 0 {
		t.Fatalf("%s has no scale", from)
	}
	fixture.Write(t, to, tensors, data)
}
