package main

import (
	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/report"
)

type migrateFlags struct {
	o tensorpress.MigrateOptions
	rewriteFlags
}

func newMigrate() *cobra.Command {
	m := &migrateFlags{}
	cmd := command(&cobra.Command{
		Use:   "migrate SOURCE DEST",
		Short: "Bring names and metadata up to date, weights untouched",
		Long: `Bring names and metadata up to date; weights are copied byte for byte.

It takes scaled_fp8 files (scale_weight, scale_input), 8-bit weights with a
weight_scale, weight_scale_inv or scale beside them, ComfyUI's nvfp4 and mxfp8
that nothing describes, and files whose layers describe themselves, be it in
the header under another prefix, and writes what ComfyUI loads today: a
weight_scale of the right shape and a description for every layer, and no
marker or header entry that says otherwise. --add-keys, --remove-keys, --input-scale and
--drop-ignored change a little more. Where tensors can be read in two ways,
--add-keys '{"format": "NAME"}' with --only decides.

--strip-prefix takes what a compiled or parallel module put before the names of
any file off them, be its layers quantized or not, in either layout.`,
		Example: `  tensorpress migrate old-scaled-fp8.safetensors model.safetensors --for comfyui
  tensorpress migrate old.safetensors new.safetensors --only '\.attn\.' \
    --add-keys '{"full_precision_matrix_mult": true}'`,
		Args: m.wants,
	}, "0 1 2 3 130", m.run)
	f := cmd.Flags()
	f.StringVar(&m.o.AddKeys, "add-keys", "", "set keys of the layers' descriptions, a `JSON` object")
	f.StringSliceVar(&m.o.RemoveKeys, "remove-keys", nil, "remove `KEYS` from the layers' descriptions; repeatable, or with commas")
	f.StringVar(&m.o.Only, "only", "", "do so, --input-scale and --drop-ignored for layers that match `PATTERN` alone, in Python's syntax")
	f.BoolVar(&m.o.DropIgnored, "drop-ignored", false, "leave out tensors beside layers that their formats ignore, such as input_scale beside int8")
	f.BoolVar(&m.o.InputScale, "input-scale", false, "give float8 layers an input scale of 1 where they have none")
	f.BoolVar(&m.o.QuantizationMetadata, "quantization-metadata", false, "describe layers in the header too, as _quantization_metadata")
	f.StringArrayVar(&m.o.StripPrefixes, "strip-prefix", nil, "take `PREFIX` off the names of tensors, such as _orig_mod.; repeatable, one after the other")
	f.StringVar(&m.o.For, "for", "", "refuse what `APP` would not load: "+appList())
	group(f, "What changes")
	m.addOutput(cmd)
	complete(cmd, "for", appNames)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return m.check(args) }
	return cmd
}

func (m *migrateFlags) run(cmd *cobra.Command, args []string) error {
	o := m.o
	at := m.places(cmd.ErrOrStderr())
	from, to, err := at.both(args[0], m.dest(args))
	if err != nil {
		return err
	}
	follow := m.start(cmd.ErrOrStderr())
	o.Threads, o.Memory, o.Progress = m.threads, at.left(m.memory.bytes), follow.update
	o.ShardSize, o.Force, o.CopyWeights, o.Hash = m.shardSize.bytes, m.force, m.copyWeights, m.report.path != ""
	if m.dryRun {
		r, err := reading(cmd.Context(), func() (*report.Report, error) {
			return tensorpress.PlanMigrate(cmd.Context(), from, to, o)
		})
		return m.finish(cmd, &m.report, r, err, printPlan)
	}
	r, err := tensorpress.Migrate(cmd.Context(), from, to, o)
	follow.end(err == nil)
	return m.finish(cmd, &m.report, r, err, printDone)
}
