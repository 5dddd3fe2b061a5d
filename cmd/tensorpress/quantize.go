package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/report"
)

// quantizeFlags are those of quantize and plan.
type quantizeFlags struct {
	o                                         tensorpress.Options
	dtype, scale                              string
	groupSize, minNumel, minChannels          int
	dequantizeFP32, skipKeys, dryRun, planned bool
	shardSize                                 size
	recipe                                    recipeFlag
	report                                    reportFlag
	runFlags
}

const decisions = `What may be said of layers:
  PATTERN is a regular expression in Python's syntax, searched anywhere in a
  tensor's full name. SETTINGS are a dtype, flags of this command without their
  dashes, kind=… (linear, embedding, conv2d, …), or keep:
  --set '\.mlp\.=uint8,group-size=64'. The first --set that matches wins;
  --keep goes before all.`

func newQuantize() *cobra.Command {
	q := &quantizeFlags{}
	cmd := command(&cobra.Command{
		Use:   "quantize SOURCE DEST",
		Short: "Quantize a checkpoint",
		Long: `Quantize a checkpoint.

SOURCE is a .safetensors file, a .safetensors.index.json, a folder with one of
them, or a diffusers pipeline, whose transformers, text encoders and UNets are
quantized. DEST is a .safetensors file, or a folder where SOURCE is one or is
sharded; all other files of a folder are copied. Nothing is at DEST before all
of it is.

` + decisions,
		Example: `  tensorpress quantize model.safetensors small.safetensors
  tensorpress quantize model.safetensors small.safetensors --dtype mxfp8
  tensorpress quantize models/big models/small --dtype uint4 --set 'down=int8'`,
		Args: q.recipe.before(func(cmd *cobra.Command, args []string) error {
			if q.dryRun {
				return wants(1, 2)(cmd, args)
			}
			return wants(2, 2)(cmd, args)
		}),
	}, "0 1 2 3 130", q.run)
	q.add(cmd)
	return cmd
}

func newPlan() *cobra.Command {
	q := &quantizeFlags{planned: true}
	cmd := command(&cobra.Command{
		Use:   "plan SOURCE [DEST]",
		Short: "Print what quantize would do",
		Long: `Print what quantize would do with the same flags, layer by layer.

It reads headers and no weights, and writes nothing.

` + decisions,
		Example: `  tensorpress plan model.safetensors
  tensorpress plan models/big models/small --dtype uint4 --group-size 64
  tensorpress plan model.safetensors --for comfyui --json`,
		Args: q.recipe.before(wants(1, 2)),
	}, "0 1 2 3 130", q.run)
	q.add(cmd)
	return cmd
}

func (q *quantizeFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	q.addStorage(f)
	group(f, "How weights are stored")
	q.addChoice(f)
	group(f, "Which layers")
	q.addOutput(f)
	q.report.add(cmd)
	group(f, "Output")
	q.runFlags.add(cmd)
	q.completions(cmd)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return q.check(args) }
}

func (q *quantizeFlags) addStorage(f *pflag.FlagSet) {
	f.StringVar(&q.o.Layout, "layout", "", "`sdnq or comfy` (default sdnq where a config.json is there, else comfy)")
	f.StringVar(&q.dtype, "dtype", "", "`NAME` as in tensorpress formats (default int8, int8_tensorwise in comfy)")
	f.StringVar(&q.o.For, "for", "", "refuse what `APP` would not load: "+appList())
	q.recipe.add(f)
	f.StringVar(&q.o.Config, "config", "", "take settings from an SDNQ config `FILE`, or the config.json that holds one; flags win over it")
	f.StringVar(&q.o.LayerConfig, "layer-config", "", "take settings of layers by patterns from a convert_to_quant layer config `FILE`")
	f.StringVar(&q.o.Like, "like", "", "take the settings of a quantized model at `PATH`, layer by layer")
	f.IntVar(&q.groupSize, "group-size", 0, "`N` values share a scale; SDNQ: 0 automatic, -1 one a row, -2 one a tensor")
	f.StringVar(&q.scale, "scale", "", "ComfyUI's formats: one scale a `tensor, row or block`")
	f.BoolVar(&q.dequantizeFP32, "dequantize-fp32", true, "SDNQ: scales in F32")
	f.BoolVar(&q.o.ExactReference, "exact-reference", false, "the reference's bytes also where it is at fault")
	f.BoolVar(&q.o.AllowNonfinite, "allow-nonfinite", false, "quantize NaN and infinity as the reference does")
	f.BoolVar(&q.o.QuantizationMetadata, "quantization-metadata", false, "ComfyUI's formats: describe layers in the header too, as _quantization_metadata")
	f.BoolVar(&q.o.AcceptUnscaledFP8, "accept-unscaled-fp8", false, "take fp8 weights without any scale for plain numbers")
	for _, s := range tensorpress.SettingFlags() {
		addSetting(f, s)
	}
}

// addSetting makes a flag of one of the library's settings.
func addSetting(f *pflag.FlagSet, s tensorpress.SettingFlag) {
	about := inFlags(s.About)
	switch v := s.Default.(type) {
	case bool:
		f.Bool(s.Name, v, about)
	case int:
		f.Int(s.Name, v, about)
	case string:
		f.String(s.Name, v, about)
	}
}

// settings are those that were given.
func settings(f *pflag.FlagSet) map[string]any {
	given := map[string]any{}
	for _, s := range tensorpress.SettingFlags() {
		if !f.Changed(s.Name) {
			continue
		}
		switch s.Default.(type) {
		case bool:
			given[s.Name], _ = f.GetBool(s.Name)
		case int:
			given[s.Name], _ = f.GetInt(s.Name)
		case string:
			given[s.Name], _ = f.GetString(s.Name)
		}
	}
	return given
}

func (q *quantizeFlags) addChoice(f *pflag.FlagSet) {
	f.StringArrayVar(&q.o.Keep, "keep", nil, "leave tensors that match `PATTERN` as they are; repeatable")
	f.StringArrayVar(&q.o.Only, "only", nil, "quantize none but those that match `PATTERN`; repeatable")
	f.StringArrayVar(&q.o.Set, "set", nil, "`PATTERN=SETTINGS` for some layers; repeatable")
	f.StringVar(&q.o.Preset, "preset", "", "`NAME` of the model family whose layers are kept, none, generic or auto (default auto)")
	f.BoolVar(&q.o.Conv, "conv", false, "SDNQ: quantize convolutions too")
	f.BoolVar(&q.o.Embedding, "embedding", false, "SDNQ: quantize embeddings too")
	f.BoolVar(&q.skipKeys, "skip-keys", true, "sdnq layout: keep what SDNQ's own list says")
	f.IntVar(&q.minNumel, "min-numel", 0, "keep weights of fewer than `N` values (default 16384 in the sdnq layout)")
	f.IntVar(&q.minChannels, "min-channels", 0, "keep weights of fewer than `N` columns (default 32 in the sdnq layout)")
}

func (q *quantizeFlags) addOutput(f *pflag.FlagSet) {
	q.shardSize.least = 1
	f.Var(&q.shardSize, "shard-size", "most bytes of weights in a file of a folder (default 5GB)")
	f.BoolVar(&q.o.Force, "force", false, "replace DEST if it is an output and holds nothing else")
	f.BoolVar(&q.o.CopyWeights, "copy-weights", false, "also copy weight files that the output does not describe")
	f.BoolVar(&q.o.Measure, "measure", false, "read the output once more for each layer's error, as --report of a page does")
	f.BoolVar(&q.dryRun, "dry-run", false, "the same as plan")
}

func (q *quantizeFlags) completions(cmd *cobra.Command) {
	complete(cmd, "layout", layoutNames)
	complete(cmd, "dtype", dtypeNames)
	complete(cmd, "for", appNames)
	complete(cmd, "preset", presetNames)
	complete(cmd, "scale", func() []string { return []string{"tensor", "row", "block"} })
}

func (q *quantizeFlags) check(args []string) error {
	if err := q.runFlags.check(); err != nil {
		return err
	}
	return q.report.check(args)
}

// options are what was said, and nil where nothing was.
func (q *quantizeFlags) options(f *pflag.FlagSet) tensorpress.Options {
	o := q.o
	o.Dtype, o.Scale = given(f, "dtype", &q.dtype), given(f, "scale", &q.scale)
	o.GroupSize = given(f, "group-size", &q.groupSize)
	o.MinNumel, o.MinChannels = given(f, "min-numel", &q.minNumel), given(f, "min-channels", &q.minChannels)
	o.DequantizeFP32, o.SkipKeys = given(f, "dequantize-fp32", &q.dequantizeFP32), given(f, "skip-keys", &q.skipKeys)
	o.ShardSize = q.shardSize.bytes
	o.Measure = q.o.Measure || q.report.isHTML() && !f.Changed("measure")
	o.Settings = settings(f)
	return o
}

func (q *quantizeFlags) run(cmd *cobra.Command, args []string) error {
	o := q.options(cmd.Flags())
	var follow meter
	o.Resources, follow = q.start(cmd.ErrOrStderr())
	dest := ""
	if len(args) == 2 {
		dest = args[1]
	}
	if q.planned || q.dryRun {
		r, err := reading(cmd.Context(), func() (*report.Report, error) {
			return tensorpress.Plan(args[0], dest, o)
		})
		return q.finish(cmd, &q.report, r, err, printPlan)
	}
	r, err := tensorpress.Quantize(cmd.Context(), args[0], dest, o)
	follow.end(err == nil)
	return q.finish(cmd, &q.report, r, err, printDone)
}
