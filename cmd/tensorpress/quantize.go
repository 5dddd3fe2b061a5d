package main

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// quantizeFlags are the flags of quantize and plan.
type quantizeFlags struct {
	o                         tensorpress.Options
	set                       []string
	like                      string
	minNumel, minChannels     int
	skipKeys, dryRun, planned bool
	shardSize, fit            size
	part                      part
	budget                    budgetFlags
	recipe                    recipeFlag
	many                      outputsFlag
	report                    reportFlag
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
of it is. SOURCE may be an address (hf://ORG/NAME, https://, s3://, gs://,
az://), and DEST one of a store or of the hub.

` + decisions,
		Example: `  tensorpress quantize model.safetensors small.safetensors
  tensorpress quantize model.safetensors small.safetensors --dtype mxfp8
  tensorpress quantize models/big models/small --dtype uint4 --set 'down=int8'
  tensorpress quantize model.safetensors small.safetensors --budget 11GiB
  tensorpress quantize model.safetensors --outputs outputs.yaml`,
		Args: q.before(func(cmd *cobra.Command, args []string) error {
			if q.dryRun || q.many.path != "" {
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

It reads headers and no weights, but to measure them for --budget, and writes
nothing.

` + decisions,
		Example: `  tensorpress plan model.safetensors
  tensorpress plan models/big models/small --dtype uint4 --group-size 64
  tensorpress plan model.safetensors --for comfyui --json
  tensorpress plan model.safetensors --budget 60% --report plan.html`,
		Args: q.before(wants(1, 2)),
	}, "0 1 2 3 130", q.run)
	q.add(cmd)
	return cmd
}

func (q *quantizeFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	q.addUsual(f)
	group(f, "What comes out")
	q.addChoice(f)
	group(f, "Which layers")
	q.budget.add(cmd)
	group(f, "Within a size")
	q.addOutput(f)
	q.report.add(cmd)
	group(f, "Output")
	q.runFlags.add(cmd)
	q.addGiven(f)
	q.addModels(f)
	q.many.add(f)
	group(f, "Given by a file")
	q.addDetails(f)
	q.completions(cmd)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return q.check(args) }
}

// addUsual adds the flags that most runs need one of.
func (q *quantizeFlags) addUsual(f *pflag.FlagSet) {
	f.StringVar(&q.o.Layout, "layout", "", "`sdnq or comfy` (default sdnq where a config.json is there, else comfy)")
	addSettings(f, "dtype")
	f.StringVar(&q.o.For, "for", "", "refuse what `APP` would not load: "+appList()+"; with --bits or --fit and no dtype, choose what it loads best")
	addSettings(f, "bits")
	q.fit.least = 1
	f.Var(&q.fit, "fit", "with --for: the most bits a value at which all weights fit `SIZE` of a card's memory")
	addSettings(f, "search")
	addNames(f, &q.o.Names)
}

// addGiven adds those of files that say what to do.
func (q *quantizeFlags) addGiven(f *pflag.FlagSet) {
	q.recipe.add(f)
	f.StringVar(&q.o.Importance, "importance", "", "weigh errors in the search by what layers are given, from a `FILE` of its mean squares; see docs/importance.md")
}

// addModels adds flags that take settings from elsewhere, and adapters.
func (q *quantizeFlags) addModels(f *pflag.FlagSet) {
	addLora(f, &q.o.Lora, &q.o.LoraPartial, "merge an adapter into the weights before they are rounded: `FILE[=STRENGTH]`; repeatable; see docs/lora.md")
	f.StringVar(&q.like, "like", "", "take the settings of a quantized model at `PATH`, layer by layer")
	f.StringVar(&q.o.Config, "config", "", "take settings from an SDNQ config `FILE`, or the config.json that holds one; flags win over it")
	f.StringVar(&q.o.LayerConfig, "layer-config", "", "take settings of layers by patterns from a convert_to_quant layer config `FILE`")
}

// addDetails adds all other settings, under a heading for each side.
func (q *quantizeFlags) addDetails(f *pflag.FlagSet) {
	addSettings(f, "group-size", "svd-rank", "svd-steps", "svd-refit", "hadamard", "hadamard-group-size", "codebook", "codebook-steps",
		"dynamic", "dynamic-loss-threshold", "scale-dtype", "zero-point-dtype", "codebook-scale", "dequantize-fp32", "model-dtype",
		"quantized-matmul", "quantized-matmul-conv", "quantized-matmul-dtype", "stochastic-rounding", "seed")
	group(f, "SDNQ's dtypes")
	addSettings(f, "scale", "block-size", "convrot", "convrot-group-size", "dynamic-convrot", "full-precision-matmul", "input-scale")
	f.BoolVar(&q.o.QuantizationMetadata, "quantization-metadata", false, "ComfyUI's formats: describe layers in the header too, as _quantization_metadata")
	group(f, "ComfyUI's formats")
	addSettings(f)
	f.BoolVar(&q.o.AcceptUnscaledFP8, "accept-unscaled-fp8", false, "take fp8 weights without any scale for plain numbers")
	group(f, "Special cases")
}

// addLora adds the flags of adapters.
func addLora(f *pflag.FlagSet, adapters *[]string, partial *bool, about string) {
	f.StringArrayVar(adapters, "lora", nil, about)
	f.BoolVar(partial, "lora-partial", false, "leave out what of an adapter fits no tensor")
}

// addSettings adds flags for the named settings of layers, or for all settings that
// have none yet.
func addSettings(f *pflag.FlagSet, names ...string) {
	for _, s := range codec.Fields() {
		if s.About == "" || names != nil && !slices.Contains(names, s.Flag) || f.Lookup(s.Flag) != nil {
			continue
		}
		about := inFlags(s.About)
		switch v := s.Default().(type) {
		case bool:
			f.Bool(s.Flag, v, about)
		case int:
			f.Int(s.Flag, v, about)
		case string:
			f.String(s.Flag, v, about)
		}
	}
}

// settings returns the settings that were given. An empty value counts as not given,
// except for --dtype, where it is an error.
func settings(f *pflag.FlagSet) (g tensorpress.Settings, err error) {
	f.Visit(func(one *pflag.Flag) {
		switch text := one.Value.String(); {
		case err != nil || !codec.IsSetting(one.Name):
		case text != "":
			err = codec.Parse(&g, one.Name, text, true)
		case one.Name == "dtype":
			_, err = codec.Resolve(text, false)
			err = usage.Wrap(err)
		}
	})
	return g, err
}

func (q *quantizeFlags) addChoice(f *pflag.FlagSet) {
	f.StringArrayVar(&q.o.Keep, "keep", nil, "leave tensors that match `PATTERN` as they are; repeatable")
	f.StringArrayVar(&q.o.Only, "only", nil, "quantize none but those that match `PATTERN`; repeatable")
	f.StringArrayVar(&q.set, "set", nil, "`PATTERN=SETTINGS` for some layers; repeatable")
	f.StringVar(&q.o.Preset, "preset", "", "`NAME` of the model family whose layers are kept, none, generic or auto (default auto); ctq:NAME is convert_to_quant's own")
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
	f.BoolVar(&q.o.Resume, "resume", false, "keep the finished files of a folder if the run ends early, and go on with those")
	f.Var(&q.part, "part", "write part `I/N` of a folder's files alone, for finish to put in place; auto or auto/N asks Slurm, AWS Batch or Kubernetes which; see docs/resume.md")
	f.BoolVar(&q.o.Measure, "measure", false, "read the output once more for each layer's error, as --report of a page does")
	f.BoolVar(&q.dryRun, "dry-run", false, "the same as plan")
}

func (q *quantizeFlags) completions(cmd *cobra.Command) {
	complete(cmd, "layout", layoutNames)
	complete(cmd, "dtype", dtypeNames)
	complete(cmd, "names", sideNames)
	complete(cmd, "for", appNames)
	complete(cmd, "preset", presetNames)
	complete(cmd, "part", func() []string { return []string{"auto"} })
	complete(cmd, "scale", func() []string { return []string{"tensor", "row", "block"} })
}

func (q *quantizeFlags) check(args []string) error {
	if err := q.runFlags.check(); err != nil {
		return err
	}
	if q.many.path != "" {
		return q.checkMany(args)
	}
	if q.many.keepGoing {
		return errors.New("--keep-going is for --outputs: one output alone has nothing to go on with")
	}
	if err := q.budget.check(args); err != nil {
		return err
	}
	return q.report.check(args)
}

// options returns the options of the given flags, with nil for optional ones that were
// not given.
func (q *quantizeFlags) options(f *pflag.FlagSet) (o tensorpress.Options, err error) {
	o = q.o
	if o.Layer, err = settings(f); err != nil {
		return o, err
	}
	for _, text := range q.set {
		rule, err := plan.ParseRule(text)
		if err != nil {
			return o, err
		}
		o.Rules = append(o.Rules, rule)
	}
	o.MinNumel, o.MinChannels = given(f, "min-numel", &q.minNumel), given(f, "min-channels", &q.minChannels)
	o.SkipKeys = given(f, "skip-keys", &q.skipKeys)
	o.Fit = q.fit.bytes
	o.ShardSize = q.shardSize.bytes
	o.Part, o.Parts = q.part.index, q.part.n
	o.Fingerprint = q.recipe.fingerprint
	if err := q.budget.options(&o); err != nil {
		return o, err
	}
	o.Hash = q.report.path != ""
	o.Measure = q.o.Measure || q.report.isHTML() && !f.Changed("measure") && o.Parts == 0
	return o, nil
}

func (q *quantizeFlags) run(cmd *cobra.Command, args []string) error {
	if q.many.path != "" {
		return q.runMany(cmd, args)
	}
	o, err := q.options(cmd.Flags())
	if err != nil {
		return err
	}
	dest := ""
	if len(args) == 2 {
		dest = args[1]
	}
	at := q.places(cmd.ErrOrStderr())
	named := at.dest
	if o.Resume || o.Parts > 0 {
		named = at.keeper
	}
	from, to, err := at.apart(args[0], dest, named)
	if err != nil {
		return err
	}
	if q.like != "" {
		if o.Like, err = at.source(q.like); err != nil {
			return err
		}
	}
	follow := q.start(cmd.ErrOrStderr())
	o.Threads, o.Memory, o.Progress = q.threads, at.left(q.memory.bytes), follow.update
	if q.planned || q.dryRun {
		if o.Budget == 0 && o.BudgetShare == 0 && o.TargetBPW == 0 { // else weights are measured
			q.limitPlan()
		}
		r, err := reading(cmd.Context(), func() (*report.Report, error) {
			return tensorpress.Plan(cmd.Context(), from, to, o)
		})
		follow.end(err == nil)
		if err == nil {
			err = q.budget.write(cmd.Flags(), r)
		}
		return q.finish(cmd, &q.report, r, err, printPlan)
	}
	r, err := tensorpress.Quantize(cmd.Context(), from, to, o)
	follow.end(err == nil)
	if err == nil {
		err = q.budget.write(cmd.Flags(), r)
	}
	return q.finish(cmd, &q.report, r, err, printDone)
}
