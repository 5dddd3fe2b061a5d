package convert_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// part is a tensor with bell-shaped values of its own.
func part(name string, scale float64, shape ...int) fixture.Weights {
	r := rand.New(rand.NewPCG(uint64(len(name)), uint64(name[len(name)-1])))
	n := 1
	for _, d := range shape {
		n *= d
	}
	w := fixture.Weights{Name: name, Dtype: safetensors.F32, Shape: shape, Values: make([]float32, n)}
	for i := range w.Values {
		w.Values[i] = float32(r.NormFloat64() * scale)
	}
	return w
}

// adapted is a model with a layer for every kind of change, one of them of several tiles,
// and the adapter.
func adapted(t *testing.T) (model, adapter string) {
	t.Helper()
	lengths := part("e.dora_scale", 0.1, 1, 384)
	rows := part("b.dora_scale", 0.1, 256, 1)
	for _, w := range []fixture.Weights{lengths, rows} {
		for i := range w.Values {
			w.Values[i] += 0.5
		}
	}
	return fixture.Save(t, "model.safetensors", nil,
			part("a.weight", 0.02, 640, 512), part("b.weight", 0.02, 256, 384), part("c.weight", 0.02, 256, 384), part("d.weight", 0.02, 256, 384),
			part("e.weight", 0.02, 512, 384), part("f.weight", 0.02, 64, 32, 3, 3), part("a.bias", 0.02, 640), part("g.weight", 0.02, 128, 256)),
		fixture.Save(t, "lora.safetensors", nil,
			part("a.lora_down.weight", 0.05, 8, 512), part("a.lora_up.weight", 0.05, 640, 8), part("a.diff_b", 0.01, 640),
			part("b.lora_A.weight", 0.05, 4, 384), part("b.lora_B.weight", 0.05, 256, 4), rows,
			part("c.lokr_w1", 0.1, 16, 16), part("c.lokr_w2_a", 0.1, 16, 4), part("c.lokr_w2_b", 0.1, 4, 24),
			part("d.hada_w1_a", 0.1, 256, 4), part("d.hada_w1_b", 0.1, 4, 384), part("d.hada_w2_a", 0.1, 256, 4), part("d.hada_w2_b", 0.1, 4, 384),
			part("e.lora_down.weight", 0.05, 4, 384), part("e.lora_up.weight", 0.05, 512, 4), lengths,
			part("f.lora_down.weight", 0.1, 4, 32, 1, 1), part("f.lora_up.weight", 0.1, 64, 4, 1, 1), part("f.lora_mid.weight", 0.1, 4, 4, 3, 3),
		)
}

// ways are ways to store layers, among them those with passes, surveys, searches and
// columns first.
var ways = []struct {
	layout string
	tensorpress.Settings
}{
	{"comfy", tensorpress.Settings{Dtype: "int8_tensorwise"}},
	{"comfy", tensorpress.Settings{Dtype: "float8_e4m3fn"}},
	{"comfy", tensorpress.Settings{Dtype: "nvfp4", Search: new(true)}},
	{"comfy", tensorpress.Settings{Dtype: "mxfp8"}},
	{"comfy", tensorpress.Settings{Dtype: "convrot_w4a4"}},
	{"comfy", tensorpress.Settings{Dtype: "int8_tensorwise", Scale: "block"}},
	{"sdnq", tensorpress.Settings{Dtype: "uint4", Search: new(true)}},
	{"sdnq", tensorpress.Settings{Dtype: "int5", SVDRank: new(8)}},
	{"sdnq", tensorpress.Settings{Dtype: "uint3", Codebook: new(true)}},
	{"sdnq", tensorpress.Settings{Dtype: "int8", QuantizedMatmul: new(true)}},
	{"sdnq", tensorpress.Settings{Dtype: "uint4", ScaleDtype: "float8_e4m3fn"}},
}

// TestLoraIsMergedBeforeAllElse: what is quantized with an adapter is, byte for byte, what the
// merged file of single precision is quantized to, however the work is cut and whatever
// passes a format takes.
func TestLoraIsMergedBeforeAllElse(t *testing.T) {
	model, adapter := adapted(t)
	text := []string{adapter + "=0.75"}
	merged := fixture.Quantized(t, model, tensorpress.Options{Keep: []string{"."}, Lora: text})
	for _, way := range ways {
		t.Run(fmt.Sprint(way.layout, "/", way.Dtype), func(t *testing.T) {
			o := tensorpress.Options{Layout: way.layout, Layer: way.Settings, Conv: way.layout == "sdnq"}
			want := fixture.FileBytes(t, fixture.Quantized(t, merged, o))
			if plain := fixture.FileBytes(t, fixture.Quantized(t, model, o)); bytes.Equal(plain, want) {
				t.Fatal("the adapter changes nothing")
			}
			o.Lora = text
			for _, cut := range []struct {
				threads int
				memory  int64
			}{{0, 0}, {1, 32 << 20}, {4, 40 << 20}} {
				o.Threads, o.Memory = cut.threads, cut.memory
				if got := fixture.FileBytes(t, fixture.Quantized(t, model, o)); !bytes.Equal(got, want) {
					t.Errorf("%d threads, %d bytes of memory: other bytes", cut.threads, cut.memory)
				}
			}
		})
	}
}

// TestLoraHeldInPart: of a merged weight that memory has room for in part, later passes see the
// same values, though their areas are smaller than those of the first, one of which ends
// beyond what is held.
func TestLoraHeldInPart(t *testing.T) {
	model := fixture.Save(t, "model.safetensors", nil, part("a.weight", 0.02, 2059, 1024))
	adapter := fixture.Save(t, "lora.safetensors", nil, part("a.lora_down.weight", 0.05, 8, 1024), part("a.lora_up.weight", 0.05, 2059, 8))
	o := tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "uint4", SVDRank: new(8)}, Lora: []string{adapter}, Threads: 1, Memory: 32 << 20}
	want := fixture.FileBytes(t, fixture.Quantized(t, model, o))
	for memory := int64(88); memory < 96; memory++ { // from 64 MiB and a quarter on, weights are held
		o.Memory = memory << 20
		if got := fixture.FileBytes(t, fixture.Quantized(t, model, o)); !bytes.Equal(got, want) {
			t.Errorf("with %d MiB of memory, other bytes", memory)
		}
	}
}

// TestLoraOfBF16: merged values are not rounded to the dtype of the source on their way: the
// tensors are those that the merged file of single precision gives.
func TestLoraOfBF16(t *testing.T) {
	wide, adapter := adapted(t)
	var narrow, widened []fixture.Weights
	for _, name := range []string{"a.weight", "b.weight", "c.weight", "d.weight", "e.weight"} {
		w := fixture.Weights{Name: name, Dtype: safetensors.BF16, Shape: shapeOf(t, wide, name), Values: fixture.ValuesOf(t, wide, name)}
		floats.RoundAll(w.Values, safetensors.BF16)
		narrow = append(narrow, w)
		w.Dtype = safetensors.F32
		widened = append(widened, w)
	}
	model, model32 := fixture.Save(t, "model.safetensors", nil, narrow...), fixture.Save(t, "model.safetensors", nil, widened...)
	lora := []string{adapter}
	merged := fixture.Quantized(t, model32, tensorpress.Options{Keep: []string{"."}, Lora: lora, LoraPartial: true})
	for _, way := range ways {
		if way.SVDRank != nil || way.Dtype == "convrot_w4a4" {
			continue // factors have the source's dtype, and rotated values are rounded to it
		}
		o := tensorpress.Options{Layout: way.layout, Layer: way.Settings}
		want := fixture.Quantized(t, merged, o)
		o.Lora, o.LoraPartial = lora, true
		got := fixture.Quantized(t, model, o)
		for _, name := range []string{"a.weight", "b.weight", "c.weight", "d.weight", "e.weight"} {
			if !bytes.Equal(fixture.Body(t, got, name), fixture.Body(t, want, name)) {
				t.Errorf("%s/%s: %s has other codes", way.layout, way.Dtype, name)
			}
		}
	}
}

func shapeOf(t *testing.T, path, name string) []int {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tensor, _ := f.Header().Lookup(name)
	return tensor.Shape
}

// TestLoraReport: the report says of every layer what is left of its change, and of no other.
func TestLoraReport(t *testing.T) {
	model, adapter := adapted(t)
	dest := filepath.Join(t.TempDir(), "out.safetensors")
	o := tensorpress.Options{Layout: "comfy", Preset: "none", Lora: []string{adapter}, Measure: true}
	r, err := tensorpress.Quantize(t.Context(), files.Dir(model), files.Dir(dest), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range r.Layers {
		if l.Action != report.Quantize {
			continue
		}
		if changed := l.Name != "g"; (l.Merged != nil) != changed {
			t.Fatalf("layer %s: %+v", l.Name, l.Merged)
		}
		if l.Merged != nil && (*l.Merged.Kept < 0.98 || *l.Merged.Kept > 1.02 || *l.Merged.Change <= 0 || *l.Merged.SNR < 10) {
			t.Errorf("layer %s keeps %v of a change of %v, %v dB", l.Name, *l.Merged.Kept, *l.Merged.Change, *l.Merged.SNR)
		}
	}
	if r.Merged == nil || *r.Merged.Kept < 0.99 || *r.Merged.Kept > 1.01 {
		t.Errorf("all: %+v", r.Merged)
	}
	o.Lora, o.Force = nil, true
	if r, err = tensorpress.Quantize(t.Context(), files.Dir(model), files.Dir(dest), o); err != nil || r.Merged != nil {
		t.Errorf("without: %+v, %v", r.Merged, err)
	}
}

// TestLoraIntoQuantized: a layer that is quantized already is restored, merged and quantized
// again, or kept as a plain weight; one that no adapter changes stays as it is.
func TestLoraIntoQuantized(t *testing.T) {
	model, adapter := adapted(t)
	small := fixture.Quantized(t, model, tensorpress.Options{Layout: "comfy"})
	plain := filepath.Join(t.TempDir(), "plain.safetensors")
	if _, err := tensorpress.Dequantize(t.Context(), files.Dir(small), files.Dir(plain), tensorpress.DequantizeOptions{Dtype: "f32"}); err != nil {
		t.Fatal(err)
	}
	o := tensorpress.Options{Layout: "comfy", Lora: []string{adapter}}
	got, want := fixture.Quantized(t, small, o), fixture.Quantized(t, plain, o)
	for _, name := range []string{"a.weight", "a.weight_scale", "c.weight", "e.weight", "a.bias", "f.weight"} {
		if !bytes.Equal(fixture.Body(t, got, name), fixture.Body(t, want, name)) {
			t.Errorf("%s is not what the restored file gives", name)
		}
	}
	o.Keep = []string{"."}
	kept := fixture.Quantized(t, small, o)
	if !bytes.Equal(fixture.Body(t, kept, "g.weight"), fixture.Body(t, small, "g.weight")) {
		t.Error("a layer without a change does not stay as it is")
	}
	o.Layout = "" // plain weights
	merged := fixture.Quantized(t, plain, o)
	if n := len(fixture.Body(t, kept, "a.weight")); n != 2*640*512 && n != 4*640*512 {
		t.Errorf("a merged layer has %d bytes", n)
	}
	if len(fixture.Body(t, merged, "a.weight")) != 4*640*512 {
		t.Error("a kept weight loses its dtype")
	}
}

// TestLoraOfAPipeline: an adapter's parts go to the components that they are for, and a part that
// fits none is an error.
func TestLoraOfAPipeline(t *testing.T) {
	root := t.TempDir()
	write := func(path string, data []byte) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("model_index.json", []byte(`{"_class_name": "P", "transformer": ["diffusers", "T"], "text_encoder": ["transformers", "CLIPTextModel"]}`))
	layer := "text_model.encoder.layers.0.self_attn.q_proj"
	write("transformer/config.json", []byte(`{"_class_name": "T"}`))
	write("transformer/diffusion_pytorch_model.safetensors", fixture.FileBytes(t, fixture.Save(t, "m", nil, part("block.0.q.weight", 1, 64, 64))))
	write("text_encoder/config.json", []byte(`{"architectures": ["CLIPTextModel"]}`))
	write("text_encoder/model.safetensors", fixture.FileBytes(t, fixture.Save(t, "m", nil, part(layer+".weight", 1, 64, 64), part("text_model.embeddings.token_embedding.weight", 1, 8, 64))))
	both := []fixture.Weights{
		part("transformer.block.0.q.lora_A.weight", 1, 4, 64), part("transformer.block.0.q.lora_B.weight", 1, 64, 4),
		part("text_encoder."+layer+".lora_A.weight", 1, 4, 64), part("text_encoder."+layer+".lora_B.weight", 1, 64, 4),
	}
	o := tensorpress.Options{Preset: "none", MinNumel: new(0), Keep: []string{"."}, Lora: []string{fixture.Save(t, "lora.safetensors", nil, both...)}}
	dest := filepath.Join(t.TempDir(), "out")
	r, err := tensorpress.Quantize(t.Context(), files.Dir(root), files.Dir(dest), o)
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(r.Notes, "\n"); !strings.Contains(text, "merged into 2 tensors") {
		t.Errorf("notes: %s", text)
	}
	for path, name := range map[string]string{"transformer/diffusion_pytorch_model.safetensors": "block.0.q.weight", "text_encoder/model.safetensors": layer + ".weight"} {
		if bytes.Equal(fixture.Body(t, filepath.Join(root, path), name), fixture.Body(t, filepath.Join(dest, path), name)) {
			t.Errorf("%s: %s is as it was", path, name)
		}
	}
	second := fixture.Save(t, "lora.safetensors", nil, append(both, part("text_encoder_2."+layer+".lora_A.weight", 1, 4, 64), part("text_encoder_2."+layer+".lora_B.weight", 1, 64, 4))...)
	o.Lora, o.Force = []string{second}, true
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(root), files.Dir(dest), o); err == nil || !strings.Contains(err.Error(), "1 key means no tensor of the model: text_encoder_2.") {
		t.Errorf("a part for no component: %v", err)
	}
}
