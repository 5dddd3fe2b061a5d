package ctq

import (
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestParse: what argparse takes, and what it refuses, must be the same here.
func TestParse(t *testing.T) {
	for _, c := range []struct{ args, option, want string }{
		{"-i a", "input", "a"},
		{"-ia", "input", "a"},
		{"-i=a", "input", "a"},
		{"--input=a=b", "input", "a=b"},
		{"-i a -i b", "input", "b"},
		{"-i a --scaling-mode row", "scaling_mode", "row"},
		{"-i a --scaling_mode=block2d", "scaling_mode", "block2d"},
		{"-i a --group-size 64", "block_size", "64"},
		{"-i a --manual_seed -1", "manual_seed", "-1"},
		{"-i a --lr -.5", "lr", "-.5"},
		{"-i a --num-iter 1_000", "num_iter", "1_000"},
		{"-i a --dry-run", "dry_run", "analyze"},
		{"-i a --dry-run create-template", "dry_run", "create-template"},
		{"-i a --dry-run --simple", "dry_run", "analyze"},
		{"-i a -fpmm", "full_precision_matrix_mult", ""},
		{"-i a -lm", "low_memory", ""},
		{"-i a -l", "low_memory", ""},
		{"-i a -esloss 1e-3", "early_stop_loss", "1e-3"},
		{"-i a --heu", "heur", ""},
		{"-i a --layer-conf b", "layer_config", "b"},
		{"-i -", "input", "-"},
	} {
		command, err := Parse(strings.Fields(c.args))
		if err != nil || !command.Has(c.option) || command.Text(c.option) != c.want {
			t.Errorf("%s: %v, %v", c.args, command, err)
		}
	}
	for args, want := range map[string]string{
		"":                             "required: -i/--input",
		"--simple":                     "required: -i/--input",
		"-i a b":                       "unrecognized arguments: b",
		"-i a --nothing":               "unrecognized arguments: --nothing",
		"-i a --simple=1":              "takes no value",
		"-i":                           "expected one argument",
		"-i --simple":                  "expected one argument",
		"-i a --custom":                "ambiguous option: --custom could match",
		"-i a --fallback int4":         "invalid choice: \"int4\" (choose from fp8, int8, mxfp8, nvfp4)",
		"-i a --block_size x":          "invalid int value",
		"-i a --block_size 1.5":        "invalid int value",
		"-i a --lr x":                  "invalid float value",
		"-i a --scaled-fp8-marker 1":   "invalid choice",
		"-i a --dry-run x":             "invalid choice",
		"-i a --layer-config --simple": "expected one argument",
	} {
		if _, err := Parse(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}

// TestHelp: every option stands in one part of the help.
func TestHelp(t *testing.T) {
	command, err := Parse([]string{"--help"})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, s := range command.Help() {
		for _, o := range s.Options {
			seen[o.Name()]++
		}
	}
	for _, o := range options {
		if seen[o.Name()] != 1 {
			t.Errorf("%s stands in the help %d times", o.Name(), seen[o.Name()])
		}
	}
	part, err := Parse(strings.Fields("--nonsense -hf"))
	if err != nil || len(part.Help()) != 1 || len(part.Help()[0].Options) != len(preset.Filters()) {
		t.Errorf("-hf: %+v, %v", part, err)
	}
}

// TestSuffix: a script finds the output by the name that the program gives it.
func TestSuffix(t *testing.T) {
	for args, want := range map[string]string{
		"--simple":                             "_simple_fp8_tensor",
		"":                                     "_learned_fp8_tensor",
		"--simple --scaling_mode block2d":      "_simple_fp8_block2d",
		"--simple --wan":                       "_simple_fp8mixed_tensor",
		"--simple --int8":                      "_simple_int8_tensorwise",
		"--simple --int8 --scaling_mode row":   "_simple_int8_rowwise",
		"--simple --int8 --scaling_mode block": "_simple_int8_bs128",
		"--int8 --scaling_mode block --block_size 64":                            "_learned_int8_bs64",
		"--simple --custom-layers a --custom-type fp8 --int8 --scaling_mode row": "_simple_int8mixed_rowwise",
		"--simple --nvfp4":                "_simple_nvfp4",
		"--mxfp8 --generic_text":          "_learned_mxfp8mixed",
		"--simple --mxfp8 --nvfp4 --int8": "_simple_nvfp4",
	} {
		c, err := Parse(append([]string{"-i", "a"}, strings.Fields(args)...))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Suffix(); got != want+".safetensors" {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
}

// TestLayerConfigOrder: which of several patterns counts.
func TestLayerConfigOrder(t *testing.T) {
	c, err := ParseLayerConfig([]byte(`{
		"_note": 1,
		"_default": {"format": "nvfp4"},
		"attn": {"format": "float8_e4m3fn"},
		"blocks.*attn": {"format": "float8_e4m3fn_rowwise"},
		"blocks\\.\\d+\\.a": {"format": "int8_tensorwise"},
		"blocks\\.0": {"skip": true},
		"mlp": {"format": "mxfp8"},
		"ffn": {"format": "int8_blockwise"}
	}`), false)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"x.attn.weight":        "attn",
		"blocks.1.attn.weight": `blocks.*attn`, // ten literal characters; \d counts with eight
		"blocks.0.mlp.weight":  `blocks\.0`,
		"mlp.ffn.weight":       "mlp", // the first of two that say as much
		"x.weight":             "_default",
	} {
		for i := range c.entries {
			e := &c.entries[i]
			if found, err := e.match(checkpoint.Tensor{Tensor: safetensors.Tensor{Name: name}}); err != nil || found {
				if e.text != want {
					t.Errorf("%s: %s counts, want %s, %v", name, e.text, want, err)
				}
				break
			}
		}
	}
}

func TestLayerConfigErrors(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                           "object",
		`{"a": 1}`:                     "a: want an object",
		`{"a": {}}`:                    `format ""`,
		`{"(": {"skip": true}}`:        "pattern",
		`{"a": {"format": "int4"}}`:    `format "int4": want one of`,
		`{"_default": {"format": ""}}`: `_default: format ""`,
		`{"a": {"format": "mxfp8", "block_size": -1}}`:       "block_size is -1",
		`{"a": {"format": "mxfp8", "scaling_mode": "rows"}}`: `scaling_mode is "rows"`,
	} {
		if _, err := ParseLayerConfig([]byte(text), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// TestTemplate: as convert_to_quant writes it, without a line end.
func TestTemplate(t *testing.T) {
	tensors := []checkpoint.Tensor{}
	for name, shape := range map[string][]int{"a.weight": {32, 64}, "b.weight": {15, 64}, "b.bias": {32}, "\u00e9.weight": {16, 16}, "c.weight": {16, 16, 1}} {
		tensors = append(tensors, checkpoint.Tensor{Tensor: safetensors.Tensor{Name: name, Shape: shape}})
	}
	const want = "{\n  \"_default\": {\n    \"format\": \"\"\n  },\n  \"_exclusions\": [],\n  \"a\": {\n    \"format\": \"\",\n    \"_shape\": [\n      32,\n      64\n    ]\n  },\n" +
		"  \"\\u00e9\": {\n    \"format\": \"\",\n    \"_shape\": [\n      16,\n      16\n    ]\n  }\n}"
	if got := Template(tensors); got != want {
		t.Errorf("%s", got)
	}
}
