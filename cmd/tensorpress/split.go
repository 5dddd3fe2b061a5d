package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/report"
)

// assemblyFlags are the flags of split and join.
type assemblyFlags struct {
	dryRun, force bool
	report        reportFlag
	runFlags
}

func (a *assemblyFlags) addOutput(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&a.force, "force", false, "replace DEST if it is an output and holds nothing else")
	f.BoolVar(&a.dryRun, "dry-run", false, "print what would be done; write nothing")
	a.report.add(cmd)
	group(f, "Output")
	a.runFlags.add(cmd)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if err := a.runFlags.check(); err != nil {
			return err
		}
		return a.report.check(args)
	}
}

// do runs a command that has a plan, and prints what became of it.
func (a *assemblyFlags) do(cmd *cobra.Command, plan, run func() (*report.Assembly, error), follow *watching) error {
	var r *report.Assembly
	var err error
	if a.dryRun {
		r, err = reading(cmd.Context(), plan)
	} else {
		r, err = run()
	}
	follow.end(err == nil)
	if err != nil {
		return err
	}
	speak(r)
	if a.report.path != "" {
		r.Provenance = provenanceOf(r.Provenance, cmd)
	}
	defer a.notes(cmd.ErrOrStderr(), r.Notes)
	if err := a.report.write(r, func() *page { return assemblyPage(r) }); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return output(cmd.OutOrStdout(), a.json, r, func(w io.Writer) { printAssembly(w, r) })
}

func newSplit() *cobra.Command {
	s := &assemblyFlags{}
	cmd := command(&cobra.Command{
		Use:   "split SOURCE DIR",
		Short: "Take an all-in-one checkpoint apart",
		Long: `Take an all-in-one checkpoint apart: the diffusion model, each text encoder, the
VAE, each as ComfyUI loads it by itself.

DIR gets folders of the names that ComfyUI's models folder has. Tensors are
copied, byte for byte, quantized or not; what belongs to no part is kept in a
file of its own. tensorpress join puts all together again.`,
		Example: `  tensorpress split sdxl.safetensors parts
  tensorpress split flux-all-in-one.safetensors parts --dry-run`,
		Args: func(cmd *cobra.Command, args []string) error {
			if s.dryRun {
				return wants(1, 2)(cmd, args)
			}
			return wants(2, 2)(cmd, args)
		},
	}, "0 1 2 3 130", func(cmd *cobra.Command, args []string) error {
		to := ""
		if len(args) == 2 {
			to = args[1]
		}
		at := s.places(cmd.ErrOrStderr())
		from, dest, err := at.both(args[0], to)
		if err != nil {
			return err
		}
		follow := s.start(cmd.ErrOrStderr())
		o := tensorpress.SplitOptions{Force: s.force, Hash: s.report.path != "", Threads: s.threads, Memory: at.left(s.memory.bytes), Progress: follow.update}
		return s.do(cmd, func() (*report.Assembly, error) {
			return tensorpress.PlanSplit(cmd.Context(), from, dest, o)
		}, func() (*report.Assembly, error) {
			return tensorpress.Split(cmd.Context(), from, dest, o)
		}, follow)
	})
	s.addOutput(cmd)
	return cmd
}

func newJoin() *cobra.Command {
	j := &struct {
		names string
		assemblyFlags
	}{}
	cmd := command(&cobra.Command{
		Use:   "join PARTS… DEST",
		Short: "Make one file of parts, or of shards",
		Long: `Make one file of parts: a checkpoint that ComfyUI loads all in one, of a
diffusion model, its text encoders and its VAE, be they files for ComfyUI,
folders of diffusers' or a whole pipeline. Or of the shards of one model, which
keep their names.

What a part is shows from its tensors; PART=PATH says it, as in
t5xxl=encoder.safetensors. Tensors are copied, byte for byte; a diffusion model
with diffusers' names gets ComfyUI's. Quantized parts stay as they are, where
ComfyUI reads them quantized in a checkpoint.`,
		Example: `  tensorpress join flux.safetensors clip_l.safetensors t5xxl.safetensors \
    ae.safetensors all-in-one.safetensors
  tensorpress join models/pipeline all-in-one.safetensors
  tensorpress join models/sharded model.safetensors`,
		Args: wants(2, 1000),
	}, "0 1 2 3 130", func(cmd *cobra.Command, args []string) error {
		var from []tensorpress.JoinPart
		at := j.places(cmd.ErrOrStderr())
		for _, text := range args[:len(args)-1] {
			part, err := joinPart(at, text)
			if err != nil {
				return err
			}
			from = append(from, part)
		}
		dest, err := at.dest(args[len(args)-1])
		if err != nil {
			return err
		}
		follow := j.start(cmd.ErrOrStderr())
		o := tensorpress.JoinOptions{Names: j.names, Force: j.force, Hash: j.report.path != "", Threads: j.threads, Memory: at.left(j.memory.bytes), Progress: follow.update}
		return j.do(cmd, func() (*report.Assembly, error) {
			return tensorpress.PlanJoin(cmd.Context(), from, dest, o)
		}, func() (*report.Assembly, error) {
			return tensorpress.Join(cmd.Context(), from, dest, o)
		}, follow)
	})
	cmd.Flags().StringVar(&j.names, "names", "", "`SIDE` whose names the shards of one model get: comfyui, diffusers, or keep (default keep)")
	group(cmd.Flags(), "What is written")
	complete(cmd, "names", sideNames)
	j.addOutput(cmd)
	return cmd
}

var partPath = regexp.MustCompile(`^([a-z][a-z0-9_]+)=(.+)$`)

// joinPart reads PART=PATH, or a path, which may hold such a sign itself.
func joinPart(at *places, text string) (tensorpress.JoinPart, error) {
	if found := partPath.FindStringSubmatch(text); found != nil {
		if _, err := os.Lstat(text); err != nil {
			s, err := at.source(found[2])
			return tensorpress.JoinPart{Part: found[1], Source: s}, err
		}
	}
	s, err := at.source(text)
	return tensorpress.JoinPart{Source: s}, err
}

func printAssembly(w io.Writer, r *report.Assembly) {
	t := newTable(2, 3, 4)
	t.add("PART", "FILE", "TENSORS", "QUANTIZED", "BYTES", "PREFIX")
	for _, p := range r.Parts {
		t.add(p.Part, p.File, fmt.Sprint(p.Tensors), fmt.Sprint(p.Quantized), report.Size(p.Bytes), cmp.Or(p.Prefix, "-"))
	}
	t.print(w)
	fmt.Fprintln(w)
	switch {
	case r.Seconds == 0:
		fmt.Fprintf(w, "would write %s\n", report.Size(r.Bytes))
	default:
		fmt.Fprintf(w, "wrote %s, %s in %.2f s\n", oneLine(r.Dest), report.Size(r.Bytes), r.Seconds)
	}
}

// assemblyPage returns the page for what was split or joined.
func assemblyPage(r *report.Assembly) *page {
	p := &page{title: r.Dest, notes: r.Notes}
	for _, s := range r.Sources {
		p.fact("source", s)
	}
	p.fact("written", r.Dest)
	p.fact("bytes", report.Size(r.Bytes))
	p.provenanceFacts(r.Provenance)
	for _, one := range r.Parts {
		p.rows = append(p.rows, row{name: one.File, action: one.Part, reason: one.Prefix, dtype: count(one.Quantized, "quantized layer"), shape: count(one.Tensors, "tensor"), in: one.Bytes, out: one.Bytes})
	}
	return p
}
