package engine_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// publishedLayer is a layer as another program publishes it, and what its format says of
// each value.
type publishedLayer struct {
	config  string // quantization_config
	weight  string // name of what it restores to
	tensors []safetensors.Tensor
	data    map[string][]byte
	value   func(row, col int) float32
	turned  bool // it restores to columns by rows, one matrix of several
}

// add adds a tensor of random bytes and returns them.
func (l *publishedLayer) add(r *rand.Rand, name string, d safetensors.Dtype, shape ...int) []byte {
	size, _ := safetensors.ByteSize(d, shape)
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return l.put(name, d, data, shape...)
}

func (l *publishedLayer) put(name string, d safetensors.Dtype, data []byte, shape ...int) []byte {
	if l.data == nil {
		l.data = map[string][]byte{}
	}
	l.tensors, l.data[name] = append(l.tensors, safetensors.Tensor{Name: name, Dtype: d, Shape: shape}), data
	return data
}

// scales adds numbers of moderate size.
func (l *publishedLayer) scales(r *rand.Rand, name string, d safetensors.Dtype, shape ...int) []float32 {
	data := l.add(r, name, d, shape...)
	values := make([]float32, len(data)*8/d.Bits())
	for i := range values {
		values[i] = float32(1+r.IntN(1000)) * 0x1p-14
	}
	floats.Narrow(data, values, d)
	return floats.Widen(values, data, d)
}

// bitsOf are some bits of a stream.
func bitsOf(data []byte, at, bits int) (code int) {
	for i := range bits {
		code |= int(data[(at+i)/8]>>((at+i)%8)&1) << i
	}
	return code
}

func ceil(a, b int) int { return (a + b - 1) / b }

// e2m1 are the values of 4-bit floats.
var e2m1 = [16]float32{0, .5, 1, 1.5, 2, 3, 4, 6, float32(math.Copysign(0, -1)), -.5, -1, -1.5, -2, -3, -4, -6}

// e4m3 is the value of an 8-bit float that is a number.
func e4m3(code byte) float32 {
	x := math.Ldexp(float64(8|code&7), int(code>>3&15)-10)
	if code>>3&15 == 0 {
		x = math.Ldexp(float64(code&7), -9)
	}
	if code&0x80 != 0 {
		x = -x
	}
	return float32(x)
}

const largeGroup = 32

// gptqLayer has groups of columns in a tensor of their own: in their order, in another
// one, or not at all.
func gptqLayer(bits int, groups string) func(r *rand.Rand, rows, cols int) publishedLayer {
	return func(r *rand.Rand, rows, cols int) publishedLayer {
		l := publishedLayer{weight: "a.weight", config: fmt.Sprintf(`"gptq", "bits": %d, "group_size": %d, "desc_act": %v`, bits, largeGroup, groups == "shuffled")}
		codes, zeros := l.add(r, "a.qweight", safetensors.I32, cols*bits/32, rows), l.add(r, "a.qzeros", safetensors.I32, cols/largeGroup, ceil(rows*bits, 32))
		scales := l.scales(r, "a.scales", safetensors.F16, cols/largeGroup, rows)
		group := func(col int) int { return col / largeGroup }
		if groups != "" {
			order := make([]int, cols)
			for i := range order {
				order[i] = i
			}
			if groups == "shuffled" {
				order = r.Perm(cols)
			}
			index := make([]byte, 4*cols)
			for i, at := range order {
				binary.LittleEndian.PutUint32(index[4*i:], uint32(at/largeGroup))
			}
			l.put("a.g_idx", safetensors.I32, index, cols)
			group = func(col int) int { return order[col] / largeGroup }
		}
		l.value = func(row, col int) float32 {
			code, g := 0, group(col)
			for i := range bits {
				at := col*bits + i
				code |= bitsOf(codes[4*(at/32*rows+row):], at%32, 1) << i
			}
			zero := (bitsOf(zeros[g*4*ceil(rows*bits, 32):], row*bits, bits) + 1) & (1<<bits - 1)
			return float32(code-zero) * scales[g*rows+row]
		}
		return l
	}
}

func awqLayer(r *rand.Rand, rows, cols int) publishedLayer {
	l := publishedLayer{weight: "a.weight", config: fmt.Sprintf(`"awq", "bits": 4, "group_size": %d`, largeGroup)}
	codes, zeros := l.add(r, "a.qweight", safetensors.I32, cols, rows/8), l.add(r, "a.qzeros", safetensors.I32, cols/largeGroup, rows/8)
	scales := l.scales(r, "a.scales", safetensors.F16, cols/largeGroup, rows)
	at := [...]int{0, 16, 4, 20, 8, 24, 12, 28}
	l.value = func(row, col int) float32 {
		g := col / largeGroup
		code, zero := bitsOf(codes[4*(col*rows/8+row/8):], at[row%8], 4), bitsOf(zeros[4*(g*rows/8+row/8):], at[row%8], 4)
		return float32(code-zero) * scales[g*rows+row]
	}
	return l
}

// compressed is a config of compressed-tensors.
func compressed(format string, bits int, kind, strategy string, group int, symmetric bool) string {
	return fmt.Sprintf(`"compressed-tensors", "format": %q, "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": %d, "type": %q, "strategy": %q, "group_size": %d, "symmetric": %v}}}`,
		format, bits, kind, strategy, group, symmetric)
}

func packedLayer(bits int, shuffled bool) func(r *rand.Rand, rows, cols int) publishedLayer {
	return func(r *rand.Rand, rows, cols int) publishedLayer {
		l := publishedLayer{weight: "a.weight", config: compressed("pack-quantized", bits, "int", "group", largeGroup, false)}
		words, groups := ceil(cols*bits, 32), cols/largeGroup
		codes, zeros := l.add(r, "a.weight_packed", safetensors.I32, rows, words), l.add(r, "a.weight_zero_point", safetensors.I32, ceil(rows*bits, 32), groups)
		scales := l.scales(r, "a.weight_scale", safetensors.BF16, rows, groups)
		shape := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(rows)), uint64(cols))
		l.put("a.weight_shape", safetensors.I64, shape, 2)
		index, order := make([]byte, 4*cols), r.Perm(cols)
		for i := range order {
			if !shuffled {
				order[i] = i
			}
			binary.LittleEndian.PutUint32(index[4*i:], uint32(order[i]/largeGroup))
		}
		l.put("a.weight_g_idx", safetensors.I32, index, cols)
		l.value = func(row, col int) float32 {
			zero, g := 0, order[col]/largeGroup
			for i := range bits {
				at := row*bits + i
				zero |= bitsOf(zeros[4*(at/32*groups+g):], at%32, 1) << i
			}
			return float32(bitsOf(codes[4*row*words:], col*bits, bits)-zero) * scales[row*groups+g]
		}
		return l
	}
}

func bytesLayer(r *rand.Rand, rows, cols int) publishedLayer {
	l := publishedLayer{weight: "a.weight", config: compressed("int-quantized", 8, "int", "group", largeGroup, false)}
	codes, zeros := l.add(r, "a.weight", safetensors.I8, rows, cols), l.add(r, "a.weight_zero_point", safetensors.I8, rows, cols/largeGroup)
	scales := l.scales(r, "a.weight_scale", safetensors.F32, rows, cols/largeGroup)
	l.value = func(row, col int) float32 {
		g := row*(cols/largeGroup) + col/largeGroup
		return (float32(int8(codes[row*cols+col])) - float32(int8(zeros[g]))) * scales[g]
	}
	return l
}

// nvfp4Layer is compressed-tensors' or, by rows, ModelOpt's.
func nvfp4Layer(modelOpt bool) func(r *rand.Rand, rows, cols int) publishedLayer {
	return func(r *rand.Rand, rows, cols int) publishedLayer {
		l := publishedLayer{weight: "a.weight", config: compressed("nvfp4-pack-quantized", 4, "float", "tensor_group", 16, true)}
		names := []string{"a.weight_packed", "a.weight_global_scale"}
		if modelOpt {
			l.config, names = `"modelopt", "quant_algo": "NVFP4"`, []string{"a.weight", "a.weight_scale_2"}
		}
		codes, scales := l.add(r, names[0], safetensors.U8, rows, cols/2), l.add(r, "a.weight_scale", safetensors.F8_E4M3, rows, cols/16)
		for i := range scales {
			scales[i] &= 0x77
		}
		all := l.scales(r, names[1], safetensors.F32, 1)[0]
		l.value = func(row, col int) float32 {
			code, scale := bitsOf(codes[row*cols/2:], 4*col, 4), e4m3(scales[row*cols/16+col/16])
			if !modelOpt {
				return e2m1[code] * float32(scale/all)
			}
			return float32(e2m1[code]*float32(scale*all)) + 0 // the code of −0 is 0
		}
		return l
	}
}

// mxfp4Layer is compressed-tensors', DeepSeek's or, as a matrix of three, gpt-oss's.
func mxfp4Layer(of string) func(r *rand.Rand, rows, cols int) publishedLayer {
	return func(r *rand.Rand, rows, cols int) publishedLayer {
		l := publishedLayer{weight: "a.weight", config: compressed("mxfp4-pack-quantized", 4, "float", "group", 32, true)}
		var codes, scales []byte
		switch of {
		case "gpt-oss":
			l.config, l.weight, l.turned = `"mxfp4"`, "a", true
			codes, scales = l.add(r, "a_blocks", safetensors.U8, 3, rows, cols/32, 16), l.add(r, "a_scales", safetensors.U8, 3, rows, cols/32)
		case "DeepSeek":
			l.config = `"fp8", "weight_block_size": [128, 128]`
			codes, scales = l.add(r, "a.weight", safetensors.I8, rows, cols/2), l.add(r, "a.scale", safetensors.F8_E8M0, rows, cols/32)
		default:
			codes, scales = l.add(r, "a.weight_packed", safetensors.U8, rows, cols/2), l.add(r, "a.weight_scale", safetensors.U8, rows, cols/32)
		}
		for i := range scales {
			scales[i] = 110 + scales[i]&15
		}
		l.value = func(row, col int) float32 {
			return e2m1[bitsOf(codes[row*cols/2:], 4*col, 4)] * float32(math.Ldexp(1, int(scales[row*cols/32+col/32])-127))
		}
		return l
	}
}

// nestedLayer is bitsandbytes' fp4, whose magnitudes of blocks are codes themselves.
func nestedLayer(r *rand.Rand, rows, cols int) publishedLayer {
	l := publishedLayer{weight: "a.weight", config: `"bitsandbytes", "load_in_4bit": true`}
	blocks := ceil(rows*cols, 64)
	codes, scales := l.add(r, "a.weight", safetensors.U8, rows*cols/2, 1), l.add(r, "a.weight.absmax", safetensors.U8, blocks)
	levels, second := []float32{0, 0.0052083334885537624, 0.6666666865348816, 1, 0.3333333432674408, 0.5, 0.1666666716337204, 0.25}, l.scales(r, "a.weight.nested_absmax", safetensors.F32, ceil(blocks, 256))
	for _, x := range levels {
		levels = append(levels, -x)
	}
	levels[8] = e2m1[8]
	data := make([]byte, 4*len(levels))
	floats.Narrow(data, levels, safetensors.F32)
	l.put("a.weight.quant_map", safetensors.F32, data, len(levels))
	nested := l.scales(r, "a.weight.nested_quant_map", safetensors.F32, 256)
	state := []byte(fmt.Sprintf(`{"quant_type": "fp4", "blocksize": 64, "dtype": "bfloat16", "shape": [%d, %d], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.25}`, rows, cols))
	l.put("a.weight.quant_state.bitsandbytes__fp4", safetensors.U8, state, len(state))
	l.value = func(row, col int) float32 {
		at := row*cols + col
		scale := float32(nested[scales[at/64]]*second[at/64/256]) + 0.25
		return levels[codes[at/2]>>(4-at%2*4)&15] * scale
	}
	return l
}

func int8Layer(r *rand.Rand, rows, cols int) publishedLayer {
	l := publishedLayer{weight: "a.weight", config: `"bitsandbytes", "load_in_8bit": true`}
	codes, scales := l.add(r, "a.weight", safetensors.I8, rows, cols), l.scales(r, "a.SCB", safetensors.F32, rows)
	l.value = func(row, col int) float32 {
		return float32(float32(int8(codes[row*cols+col]))*scales[row]) * 7.874015718698502e-3
	}
	return l
}

func float8Layer(r *rand.Rand, rows, cols int) publishedLayer {
	l := publishedLayer{weight: "a.weight", config: `"fp8", "weight_block_size": [128, 128]`}
	codes, scales := l.add(r, "a.weight", safetensors.F8_E4M3, rows, cols), l.scales(r, "a.weight_scale_inv", safetensors.F32, ceil(rows, 128), ceil(cols, 128))
	for i := range codes {
		codes[i] &= 0xBF
	}
	l.value = func(row, col int) float32 {
		return e4m3(codes[row*cols+col]) * scales[row/128*ceil(cols, 128)+col/128]
	}
	return l
}

// TestPublishedLarge: weights in every format that other programs publish come back as the
// format says, whatever tiles and windows cut them into: of a single row, so wide that
// tiles are parts of rows, and tall. Quantizing them gives what quantizing their values
// gives.
func TestPublishedLarge(t *testing.T) {
	t.Parallel()
	shapes := map[string][2]int{"one row": {1, 67584}, "wide": {2, 66560}, "eight rows": {8, 8704}, "tall": {8704, 32}, "both": {264, 1088}}
	for name, layer := range map[string]func(r *rand.Rand, rows, cols int) publishedLayer{
		"gptq2": gptqLayer(2, "in order"), "gptq3": gptqLayer(3, "in order"), "gptq4": gptqLayer(4, "in order"), "gptq8": gptqLayer(8, "in order"),
		"gptq without groups": gptqLayer(4, ""), "gptq in another order": gptqLayer(4, "shuffled"), "awq": awqLayer,
		"packed in 3 bits": packedLayer(3, false), "packed in 4 bits": packedLayer(4, true), "bytes": bytesLayer,
		"nvfp4": nvfp4Layer(false), "nvfp4 of ModelOpt": nvfp4Layer(true), "mxfp4": mxfp4Layer(""), "mxfp4 of DeepSeek": mxfp4Layer("DeepSeek"),
		"mxfp4 of gpt-oss": mxfp4Layer("gpt-oss"), "fp4 nested": nestedLayer, "int8": int8Layer, "fp8 in blocks": float8Layer,
	} {
		for size, shape := range shapes {
			if name == "awq" && shape[0]%8 > 0 {
				continue
			}
			t.Run(name+", "+size, func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(uint64(len(name)), 3))
				checkPublished(t, layer(r, shape[0], shape[1]), shape[0], shape[1])
			})
		}
	}
}

func checkPublished(t *testing.T, l publishedLayer, rows, cols int) {
	dir := t.TempDir()
	fixture.Write(t, filepath.Join(dir, "model.safetensors"), l.tensors, l.data)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"torch_dtype": "bfloat16", "quantization_config": {"quant_method": `+l.config+`}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	values := make([]float32, rows*cols)
	for i := range values {
		if row, col := i/cols, i%cols; l.turned {
			values[col*rows+row] = l.value(row, col)
		} else {
			values[i] = l.value(row, col)
		}
	}
	for _, way := range []struct {
		memory int64 // of the first there are no windows
		d      safetensors.Dtype
	}{{1 << 10, safetensors.F32}, {1 << 20, safetensors.F32}, {1 << 20, safetensors.BF16}, {0, safetensors.BF16}} {
		dest, dtype, width := filepath.Join(t.TempDir(), "plain"), strings.ToLower(way.d.String()), way.d.Bits()/8
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(dir), files.Dir(dest), tensorpress.DequantizeOptions{Dtype: dtype, Memory: way.memory, Threads: 3}); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, len(values)*width)
		floats.Narrow(want, values, way.d)
		got := fixture.Body(t, filepath.Join(dest, "model.safetensors"), l.weight)
		if l.turned { // the first of three
			got = got[:len(got)/3]
		}
		for at := 0; at < len(want); at += width {
			if !bytes.Equal(got[at:at+width], want[at:at+width]) {
				t.Fatalf("with %d bytes of memory, value %d of %d is %x in %s, want %x", way.memory, at/width, len(values), got[at:at+width], dtype, want[at:at+width])
			}
		}
	}
	if l.turned {
		return
	}
	plain := fixture.Save(t, "plain.safetensors", nil, fixture.Weights{Name: l.weight, Dtype: safetensors.F32, Shape: []int{rows, cols}, Values: values})
	o := tensorpress.Options{Layout: "sdnq", Layer: storage.Settings{Dtype: "uint4", GroupSize: new(-1)}}
	of := fixture.Quantized(t, plain, o)
	for _, o.Memory = range []int64{1 << 20, 0} {
		from := fixture.Quantized(t, dir, o)
		for _, part := range []string{"a.weight", "a.scale", "a.zero_point"} {
			if !bytes.Equal(fixture.Body(t, from, part), fixture.Body(t, of, part)) {
				t.Errorf("with %d bytes of memory, quantized has another %s than its values", o.Memory, part)
			}
		}
		report, err := tensorpress.Verify(t.Context(), files.Dir(of), tensorpress.VerifyOptions{Source: files.Dir(dir), Memory: o.Memory})
		if err != nil {
			t.Fatal(err)
		}
		want, err := tensorpress.Verify(t.Context(), files.Dir(of), tensorpress.VerifyOptions{Source: files.Dir(plain), Memory: o.Memory})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(*report.Layers[0].RelMSE), fmt.Sprint(*want.Layers[0].RelMSE); got != want {
			t.Errorf("with %d bytes of memory, verify finds a rel_mse of %s, and %s beside the values", o.Memory, got, want)
		}
	}
}
