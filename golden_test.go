package tensorpress_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// ctqOptions are our words for the options of convert_to_quant, by its own.
var ctqOptions = map[string]tensorpress.Options{
	"--simple":                    {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn"}},
	"--simple --scaling_mode row": {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn", Scale: "row"}},
	"--simple --scaling_mode block --block_size 32":                              {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn", Scale: "block", BlockSize: new(32)}},
	"--simple --scaling_mode block --block_size 32 --full_precision_matrix_mult": {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn", Scale: "block", BlockSize: new(32), FullPrecisionMatmul: new(true)}},
	"--simple --full_precision_matrix_mult":                                      {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn", FullPrecisionMatmul: new(true)}},
	"--simple --input_scale":                                                     {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn", InputScale: new(true)}},
	"--simple --int8 --scaling_mode tensor":                                      {Layer: tensorpress.Settings{Scale: "tensor"}},
	"--simple --int8":                                                            {Layer: tensorpress.Settings{Scale: "tensor"}},
	"--simple --low-memory":                                                      {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn"}},
	"--simple --int8 --scaling_mode row":                                         {},
	"--simple --int8 --scaling_mode block --block_size 32":                       {Layer: tensorpress.Settings{Dtype: "int8_blockwise", BlockSize: new(32)}},
	"--simple --custom-layers .* --custom-type mxfp8 --custom-simple":            {Layer: tensorpress.Settings{Dtype: "mxfp8"}},
	"--simple --custom-layers .* --custom-type nvfp4 --custom-simple":            {Layer: tensorpress.Settings{Dtype: "nvfp4"}},
	"--simple --int8 --scaling_mode row --convrot":                               {Layer: tensorpress.Settings{ConvRot: new(true)}},
	"--simple --int8 --scaling_mode row --convrot --convrot-group-size 16":       {Layer: tensorpress.Settings{ConvRot: new(true), ConvRotGroupSize: new(16)}},
	"--simple --exclude-layers edge":                                             {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn"}, Keep: []string{"edge"}},
	"--simple --int8 --scaling_mode row --exclude-layers edge":                   {Keep: []string{"edge"}},
	"--simple --int8 --scaling_mode tensor --exclude-layers edge":                {Keep: []string{"edge"}},
}

// TestFilesEqualConvertToQuant: a file would not be what convert_to_quant
// --simple writes. All-zero layers in int8 are left out: convert_to_quant
// aborts on them, or writes a scale that ComfyUI does not load.
func TestFilesEqualConvertToQuant(t *testing.T) {
	t.Parallel()
	compared := 0
	for _, row := range fixture.Tsv(t, "testdata/golden/ctq/ctq.tsv") {
		options, header := strings.CutSuffix(row[1], " --save-quant-metadata")
		o, ok := ctqOptions[options]
		o.QuantizationMetadata = header
		if row[0] == "rotate" && !strings.HasSuffix(row[1], " 16") {
			continue // compared by tensors: see TestRotatedFilesOfConvertToQuant
		}
		zero := strings.HasPrefix(row[0], "zero") && strings.Contains(row[1], "int8") && !strings.Contains(row[1], "convrot")
		if !ok || zero {
			continue
		}
		compared++
		o.Preset, o.Layer.ExactReference = "none", new(true)
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		if _, err := tensorpress.Quantize(t.Context(), files.Dir("testdata/golden/ctq/"+row[0]+".src.safetensors"), files.Dir(dest), o); err != nil {
			t.Errorf("%s %s: %v", row[0], row[1], err)
			continue
		}
		if got := fixture.FileHash(t, dest); got != row[2] {
			t.Errorf("%s %s: sha256 is %s, want %s", row[0], row[1], got, row[2])
		}
	}
	if compared < 62 {
		t.Errorf("compared %d files, want at least 62", compared)
	}
}

// TestZeroLayersLoad: all-zero layers must come out with the scales of zero
// rows, whatever the reference does.
func TestZeroLayersLoad(t *testing.T) {
	for _, scale := range []string{"tensor", "row"} {
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		o := tensorpress.Options{Preset: "none", Layer: tensorpress.Settings{Scale: scale}}
		if _, err := tensorpress.Quantize(t.Context(), files.Dir("testdata/golden/ctq/zero.src.safetensors"), files.Dir(dest), o); err != nil {
			t.Fatal(err)
		}
		v, err := tensorpress.Verify(t.Context(), files.Dir(dest), tensorpress.VerifyOptions{Source: files.Dir("testdata/golden/ctq/zero.src.safetensors"), For: "comfyui"})
		if err != nil || !v.OK {
			t.Errorf("%s: %+v, %v", scale, v, err)
		}
	}
}

// sdnqCases are the folders that sdnq saved, and our words for its settings.
var sdnqCases = map[string]tensorpress.Options{
	"int8":          {Layer: tensorpress.Settings{Dtype: "int8"}},
	"uint4":         {Layer: tensorpress.Settings{Dtype: "uint4"}},
	"float8_e4m3fn": {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn"}},
	"int5":          {Layer: tensorpress.Settings{Dtype: "int5"}},
	"float6_e3m2fn": {Layer: tensorpress.Settings{Dtype: "float6_e3m2fn"}},
	"uint4_tensor":  {Layer: tensorpress.Settings{Dtype: "uint4", GroupSize: new(-2)}},
	"uint1":         {Layer: tensorpress.Settings{Dtype: "uint1"}},
	"mixed":         {Config: "testdata/golden/sdnq/mixed/quantization_config.json"},
	"lists":         {Layer: tensorpress.Settings{Dtype: "int8"}},
}

// TestFoldersEqualSDNQ: the weights must be the very file that sdnq saves, and
// the config must say the same.
func TestFoldersEqualSDNQ(t *testing.T) {
	for name, o := range sdnqCases {
		t.Run(name, func(t *testing.T) {
			dest := filepath.Join(t.TempDir(), "out")
			config := readConfig(t, "testdata/golden/sdnq/"+name)
			o.MinNumel, o.MinChannels = fixture.Ptr(int(config["minimum_allowed_numel"].(float64))), fixture.Ptr(int(config["minimum_allowed_channel_size"].(float64)))
			o.Layer.ExactReference = new(true) // also in the lists of the config
			if _, err := tensorpress.Quantize(t.Context(), files.Dir(fixture.SdnqSource(t, name)), files.Dir(dest), o); err != nil {
				t.Fatal(err)
			}
			got, want := filepath.Join(dest, "diffusion_pytorch_model.safetensors"), "testdata/golden/sdnq/"+name+"/diffusion_pytorch_model.safetensors"
			if fixture.FileHash(t, got) != fixture.FileHash(t, want) {
				t.Errorf("file differs from sdnq's: %v", fixture.Differences(t, got, want))
			}
			compareConfigs(t, readConfig(t, dest), config)
		})
	}
}

func readConfig(t *testing.T, dir string) map[string]any {
	t.Helper()
	var model map[string]map[string]any
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	json.Unmarshal(text, &model) // other keys are no objects
	if model["quantization_config"] == nil {
		t.Fatalf("%s: no quantization_config", dir)
	}
	return model["quantization_config"]
}

// compareConfigs takes lists as sets: sdnq's order follows a hash.
func compareConfigs(t *testing.T, got, want map[string]any) {
	t.Helper()
	for key := range want {
		g, _ := json.Marshal(asSet(got[key]))
		w, _ := json.Marshal(asSet(want[key]))
		if string(g) != string(w) {
			t.Errorf("%s is %s, want %s", key, g, w)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok && key != "tensorpress_shapes" {
			t.Errorf("%s is not a key of sdnq's", key)
		}
	}
}

func asSet(v any) any {
	list, ok := v.([]any)
	if !ok {
		return v
	}
	set := map[string]bool{}
	for _, item := range list {
		set[item.(string)] = true
	}
	return set
}

// TestDequantizeEqualsSDNQ: what sdnq saved must come back with the values
// that sdnq itself restores.
func TestDequantizeEqualsSDNQ(t *testing.T) {
	restored := map[string]*safetensors.File{}
	for _, row := range fixture.Tsv(t, "testdata/golden/sdnq/dequant.tsv") {
		if row[0] == "int8_matmul" {
			continue
		}
		for _, field := range row[2:] {
			dtype, want, _ := strings.Cut(field, "=")
			key := row[0] + dtype
			if restored[key] == nil {
				restored[key] = fixture.Dequantized(t, "testdata/golden/sdnq/"+row[0], strings.ToLower(dtype))
			}
			if got := fixture.TensorHash(t, restored[key], row[1]+".weight"); got != want {
				t.Errorf("%s %s as %s: %s, want %s", row[0], row[1], dtype, got, want)
			}
		}
	}
}

// TestDequantizeEqualsKitchen: files that convert_to_quant wrote must come back
// with the values that comfy-kitchen restores, in every dtype.
func TestDequantizeEqualsKitchen(t *testing.T) {
	t.Parallel()
	compared := 0
	for _, row := range fixture.Tsv(t, "testdata/golden/kitchen.tsv") {
		file, layer, ok := strings.Cut(strings.TrimPrefix(row[0], "ctq/"), ":")
		if !ok || strings.Contains(file, "fp8_row") {
			continue
		}
		for _, field := range row[4:] {
			dtype, want, _ := strings.Cut(field, "=")
			f := fixture.Dequantized(t, "testdata/golden/ctq/"+file+".safetensors", dtype)
			if got := fixture.TensorHash(t, f, layer+".weight"); got != want {
				t.Errorf("%s as %s: %s, want %s", row[0], dtype, got, want)
			}
			compared++
		}
	}
	if compared < 20 {
		t.Errorf("compared %d weights, want at least 20", compared)
	}
}
