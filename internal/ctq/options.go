// Package ctq is the command line of convert_to_quant 1.3.4: its options, and
// what they ask of a plan. It reads no weights.
package ctq

import (
	"strings"

	"github.com/tensorpress/tensorpress/internal/preset"
)

// Kind is what an option takes.
type Kind int

// The kinds.
const (
	Switch  Kind = iota
	Text         // one value
	Integer      // one whole number
	Number       // one number
	Maybe        // one value or none
)

// Use is what becomes of an option.
type Use int

// The uses.
const (
	Taken Use = iota // it decides something
	Idle             // it has no effect on what is written
	Mode             // another job than quantizing
	Left             // it is left out on purpose: giving it is an error
)

// Option is a row: an option of convert_to_quant.
type Option struct {
	Names   []string // the first is its own; others are spellings
	Kind    Kind
	Choices []string
	Default string
	Use     Use
	// Ours is what to write in tensorpress's own words, or why there is nothing.
	Ours string
}

// String is the option as errors name it.
func (o *Option) String() string { return strings.Join(o.Names, "/") }

// Name is the option's name without dashes, with underscores.
func (o *Option) Name() string { return plainName(o.Names[0]) }

func plainName(name string) string {
	return strings.ReplaceAll(strings.TrimLeft(name, "-"), "-", "_")
}

// Options returns every row.
func Options() []Option { return options }

const (
	learned   = "rounding is never learned here, so it decides nothing"
	machine   = "there is nothing to choose: it runs on the processor, in bounded memory"
	calibrate = "`migrate` and `quantize` take no measurements from random data; `--input-scale` stores 1"
	factors   = "`--layout sdnq --svd-rank N` stores a low-rank part that loaders add"
)

var (
	types = []string{"fp8", "int8", "mxfp8", "nvfp4"}
	modes = []string{"tensor", "row", "block", "block3d", "block2d"}
)

var options = concat(
	[]Option{
		{Names: spelled("--input", "-i"), Kind: Text, Ours: "SOURCE"},
		{Names: spelled("--output", "-o"), Kind: Text, Ours: "DEST, with `--force` where it exists"},
		{Names: spelled("--comfy_quant"), Use: Idle, Ours: "nothing: the comfy layout describes every layer"},
		{Names: spelled("--int8"), Ours: "`--dtype int8_tensorwise --scale tensor`, or `--scale row`; `--dtype int8_blockwise`"},
		{Names: spelled("--convrot"), Ours: "`--convrot`"},
		{Names: spelled("--convrot-group-size"), Kind: Integer, Default: "256", Ours: "`--convrot-group-size N`"},
		{Names: spelled("--dynamic-convrot"), Ours: "`--dynamic-convrot`"},
		{Names: spelled("--nvfp4"), Ours: "`--dtype nvfp4`"},
		{Names: spelled("--mxfp8"), Ours: "`--dtype mxfp8`"},
		{Names: spelled("--make-hybrid-mxfp8"), Use: Mode, Ours: "nothing: no scalar fits codes that were made by blocks; `migrate` makes such files mxfp8 again"},
		{Names: spelled("--tensor-scales"), Kind: Text, Use: Mode, Ours: "nothing: no scalar fits codes that were made by blocks"},
		{Names: spelled("--fallback"), Kind: Text, Choices: types, Ours: "`--set 'PATTERN=DTYPE'` for what a preset keeps"},
		{Names: spelled("--fallback-block-size"), Kind: Integer, Ours: "`--set 'PATTERN=DTYPE,block-size=N'`"},
		{Names: spelled("--fallback-simple"), Ours: "nothing: no rounding is learned"},
		{Names: spelled("--custom-layers"), Kind: Text, Ours: "`--set 'PATTERN=DTYPE'`"},
		{Names: spelled("--custom-type"), Kind: Text, Choices: types, Ours: "`--set 'PATTERN=DTYPE'`"},
		{Names: spelled("--custom-block-size"), Kind: Integer, Ours: "`--set 'PATTERN=DTYPE,block-size=N'`"},
		{Names: spelled("--custom-scaling-mode"), Kind: Text, Choices: modes, Ours: "`--set 'PATTERN=DTYPE,scale=row'`"},
		{Names: spelled("--custom-simple"), Ours: "nothing: no rounding is learned"},
		{Names: spelled("--custom-heur"), Ours: "`--set 'PATTERN=DTYPE,whole-blocks=N'`"},
		{Names: []string{"--custom-full-precision-mm", "--custom-fpmm"}, Ours: "`--set 'PATTERN=DTYPE,full-precision-matmul'`"},
		{Names: []string{"--custom-convrot"}, Ours: "`--set 'PATTERN=int8_tensorwise,convrot'`"},
		{Names: []string{"--custom-convrot-group-size"}, Kind: Integer, Default: "256", Ours: "`--set 'PATTERN=int8_tensorwise,convrot,convrot-group-size=N'`"},
		{Names: spelled("--exclude-layers"), Kind: Text, Ours: "`--keep PATTERN`"},
		{Names: spelled("--output-dtype"), Kind: Text, Choices: []string{"bfloat16", "float16"}, Default: "bfloat16", Ours: "nothing: tensors that are not quantized keep their dtype"},
		{Names: spelled("--preserve-layers"), Kind: Text, Ours: "nothing: tensors that are not quantized keep their dtype"},
		{Names: spelled("--simple"), Ours: "nothing: no rounding is learned"},
		{Names: spelled("--full_precision_matrix_mult", "-fpmm"), Ours: "`--full-precision-matmul`"},
		{Names: spelled("--heur"), Ours: "`--whole-blocks N`; `--preset generic` keeps thin layers"},
		{Names: spelled("--device"), Kind: Text, Use: Idle, Ours: machine},
		{Names: spelled("--input_scale"), Ours: "`--input-scale`"},
		{Names: spelled("--verbose"), Kind: Text, Choices: []string{"DEBUG", "VERBOSE", "NORMAL", "MINIMAL"}, Default: "NORMAL", Use: Idle, Ours: "`--progress`, `-q`"},
	},
	presets(`gemma4 qwen_vlm qwen35 t5xxl mistral visual generic_text anima lens flux2 distillation_large distillation_small
		nerf_large nerf_small radiance krea2 ideogram4 wan hunyuan minimaxh3 qwen zimage zimage_refiner boogu ltxv2`),
	[]Option{
		{Names: spelled("--scaling_mode"), Kind: Text, Choices: modes, Default: "tensor", Ours: "`--scale tensor`, `row` or `block`"},
		{Names: append(spelled("--block_size"), spelled("--group_size")...), Kind: Integer, Ours: "`--block-size N`"},
		{Names: spelled("--calib_samples"), Kind: Integer, Default: "3072", Use: Idle, Ours: "nothing: biases are kept as they are, not corrected from random data"},
		{Names: spelled("--calib_cpu"), Use: Idle, Ours: machine},
		{Names: spelled("--manual_seed"), Kind: Integer, Default: "-1", Use: Idle, Ours: "nothing: nothing is left to chance"},
	},
	idle(Switch, "full_matrix use_speed"),
	idle(Integer, "num_iter lr_patience lr_cooldown early_stop_stall scale_refinement min_k max_k"),
	idle(Number, "lr lr_gamma lr_factor lr_min lr_threshold lr_shape_influence early_stop_loss early_stop_lr top_p"),
	[]Option{
		{Names: spelled("--optimizer"), Kind: Text, Choices: []string{"original", "adamw", "radam", "prodigy"}, Default: "prodigy", Use: Idle, Ours: learned},
		{Names: spelled("--lr_schedule"), Kind: Text, Choices: []string{"adaptive", "exponential", "plateau"}, Default: "plateau", Use: Idle, Ours: learned},
		{Names: spelled("--lr_adaptive_mode"), Kind: Text, Choices: []string{"simple-reset", "no-reset"}, Default: "simple-reset", Use: Idle, Ours: learned},
		{Names: spelled("--lr-threshold-mode"), Kind: Text, Choices: []string{"rel", "abs"}, Default: "rel", Use: Idle, Ours: learned},
		{Names: spelled("--scale-optimization"), Kind: Text, Choices: []string{"fixed", "iterative", "joint", "dualround"}, Default: "fixed", Use: Idle, Ours: learned},
		{Names: spelled("--extract-lora"), Use: Idle, Ours: factors},
		{Names: spelled("--lora-rank"), Kind: Integer, Default: "32", Use: Idle, Ours: factors},
		{Names: spelled("--lora-target"), Kind: Text, Use: Idle, Ours: factors},
		{Names: spelled("--lora-depth"), Kind: Integer, Default: "1", Use: Idle, Ours: factors},
		{Names: spelled("--lora-ar-threshold"), Kind: Number, Default: "0.0", Use: Idle, Ours: factors},
		{Names: spelled("--lora-output"), Kind: Text, Use: Idle, Ours: factors},
		{Names: spelled("--convert-fp8-scaled"), Use: Mode, Ours: "`migrate`"},
		{Names: spelled("--hp-filter"), Kind: Text, Use: Mode, Ours: "nothing: `plan` and `inspect` say what is quantized"},
		{Names: spelled("--full-precision-mm"), Use: Mode, Ours: "`migrate --add-keys '{\"full_precision_matrix_mult\": true}'`"},
		{Names: spelled("--convert-int8-scaled"), Use: Mode, Ours: "`migrate`"},
		{Names: spelled("--legacy_input_add"), Use: Mode, Ours: "`migrate --input-scale`"},
		{Names: spelled("--cleanup-fp8-scaled"), Use: Mode, Ours: "`migrate`"},
		{Names: spelled("--scaled-fp8-marker"), Kind: Integer, Choices: []string{"0", "2"}, Default: "0", Use: Mode, Ours: "nothing: the comfy layout has no marker"},
		{Names: spelled("--actcal"), Use: Left, Ours: calibrate},
		{Names: spelled("--actcal-samples"), Kind: Integer, Default: "64", Use: Idle, Ours: calibrate},
		{Names: spelled("--actcal-percentile"), Kind: Number, Default: "99.9", Use: Idle, Ours: calibrate},
		{Names: spelled("--actcal-lora"), Kind: Text, Use: Idle, Ours: calibrate},
		{Names: spelled("--actcal-seed"), Kind: Integer, Default: "42", Use: Idle, Ours: calibrate},
		{Names: spelled("--actcal-device"), Kind: Text, Use: Idle, Ours: calibrate},
		{Names: spelled("--save-quant-metadata"), Ours: "`--quantization-metadata`"},
		{Names: spelled("--no-normalize-scales"), Use: Idle, Ours: "nothing: it has no effect there either"},
		{Names: spelled("--input-scales"), Kind: Text, Ours: "`ctq --input-scales`: there is no flag of ours"},
		{Names: spelled("--edit-quant"), Use: Mode, Ours: "`migrate` with `--add-keys` or `--remove-keys`"},
		{Names: spelled("--remove-keys"), Kind: Text, Use: Mode, Ours: "`migrate --remove-keys KEYS`"},
		{Names: spelled("--add-keys"), Kind: Text, Use: Mode, Ours: "`migrate --add-keys JSON`"},
		{Names: spelled("--quant-filter"), Kind: Text, Use: Mode, Ours: "`migrate --only PATTERN`"},
		{Names: spelled("--layer-config"), Kind: Text, Ours: "`--layer-config FILE`"},
		{Names: spelled("--fullmatch"), Ours: "`^…$` in the file's patterns"},
		{Names: spelled("--dry-run"), Kind: Maybe, Choices: []string{"analyze", "create-template"}, Default: "analyze", Ours: "`plan`"},
		{Names: spelled("--verbose-pinned"), Use: Idle, Ours: machine},
		{Names: spelled("--low-memory", "-lm"), Use: Idle, Ours: machine},
		{Names: []string{"--help", "-h"}, Ours: "`--help`"},
		{Names: []string{"--help-learned", "-hl"}, Ours: "`--help`"},
		{Names: []string{"--help-experimental", "-he"}, Ours: "`--help`"},
		{Names: []string{"--help-filters", "-hf"}, Ours: "`presets`"},
		{Names: []string{"--help-advanced", "-ha"}, Ours: "`--help`"},
		{Names: []string{"--help-modes", "-hm"}, Ours: "`migrate --help`"},
		{Names: []string{"--help-lora", "-hlr"}, Ours: "`--help`"},
	},
)

// spelled returns a name with hyphens and with underscores, and short ones.
func spelled(name string, short ...string) []string {
	names := []string{name}
	body := name[2:]
	for _, other := range []string{strings.ReplaceAll(body, "_", "-"), strings.ReplaceAll(body, "-", "_")} {
		if other != body {
			names = append(names, "--"+other)
		}
	}
	return append(names, short...)
}

func concat(lists ...[]Option) (all []Option) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

func presets(names string) (list []Option) {
	for _, name := range strings.Fields(names) {
		ours := name
		if p, err := preset.ByName(name); err == nil && len(p.Safe) > 0 { // ours keeps more
			ours = preset.Reference + name
		}
		list = append(list, Option{Names: []string{"--" + name}, Ours: "`--preset " + ours + "`"})
	}
	return list
}

var shortNames = map[string]string{"early_stop_loss": "-esloss", "early_stop_lr": "-eslr", "early_stop_stall": "-esstall"}

// idle are options of learned rounding.
func idle(kind Kind, names string) (list []Option) {
	for _, name := range strings.Fields(names) {
		o := Option{Names: spelled("--" + name), Kind: kind, Use: Idle, Ours: learned}
		if short := shortNames[name]; short != "" {
			o.Names = append(o.Names, short)
		}
		list = append(list, o)
	}
	return list
}
