package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/report"
)

type verifyFlags struct {
	o         tensorpress.VerifyOptions
	source    string
	maxRelMSE float64
	report    reportFlag
	runFlags
}

// errVerify says that verification found a problem.
var errVerify = errors.New("verification failed")

func newVerify() *cobra.Command {
	v := &verifyFlags{}
	cmd := command(&cobra.Command{
		Use:   "verify PATH",
		Short: "Check that a quantized checkpoint is sound",
		Long: `Check that a quantized checkpoint, or every one of a diffusers pipeline, is
sound: it is whole and every layer decodes.

With --for, also that an application would load it. With --source, also that no
tensor is missing and how far each layer is from the weights it was made of:
rel_mse is the sum of squared errors over that of squared weights.`,
		Example: `  tensorpress verify small.safetensors
  tensorpress verify small.safetensors --source model.safetensors
  tensorpress verify models/small --for diffusers`,
		Args: wants(1, 1),
	}, "0 1 2 3 4 130", v.run)
	f := cmd.Flags()
	f.StringVar(&v.source, "source", "", "`SOURCE` that it was made of")
	addLora(f, &v.o.Lora, &v.o.LoraPartial, "with --source: an adapter that was merged into it, `FILE[=STRENGTH]`; repeatable")
	f.Float64Var(&v.maxRelMSE, "max-rel-mse", 0, "with --source: a layer's rel_mse above `X` is a problem")
	f.StringVar(&v.o.For, "for", "", "`APP` that must load it: "+appList())
	group(f, "What to check")
	v.report.add(cmd)
	group(f, "Output")
	v.add(cmd)
	complete(cmd, "for", appNames)
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error { return v.check(cmd, args) }
	return cmd
}

func (v *verifyFlags) check(cmd *cobra.Command, args []string) error {
	v.o.MaxRelMSE = given(cmd.Flags(), "max-rel-mse", &v.maxRelMSE)
	switch {
	case v.o.MaxRelMSE != nil && v.source == "":
		return errors.New("--max-rel-mse needs --source")
	case !(v.maxRelMSE >= 0): // NaN too
		return fmt.Errorf("--max-rel-mse %g: want 0 or more", v.maxRelMSE)
	}
	if err := v.runFlags.check(); err != nil {
		return err
	}
	if v.source != "" {
		args = append(args, v.source)
	}
	return v.report.check(args)
}

func (v *verifyFlags) run(cmd *cobra.Command, args []string) error {
	o := v.o
	at := v.places(cmd.ErrOrStderr())
	what, err := at.source(args[0])
	if err == nil && v.source != "" {
		o.Source, err = at.source(v.source)
	}
	if err != nil {
		return err
	}
	follow := v.start(cmd.ErrOrStderr())
	o.Threads, o.Memory, o.Progress = v.threads, at.left(v.memory.bytes), follow.update
	found, err := reading(cmd.Context(), func() (*report.Verification, error) {
		return tensorpress.Verify(cmd.Context(), what, o)
	})
	follow.end(err == nil)
	if err != nil {
		return err
	}
	speak(found)
	if err := v.report.write(found, func() *page { return verificationPage(args[0], v.source, found) }); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := output(cmd.OutOrStdout(), v.json, found, func(w io.Writer) { printVerification(w, found) }); err != nil {
		return err
	}
	if !found.OK {
		return fmt.Errorf("%s: %w: %s", args[0], errVerify, count(len(found.Problems), "problem"))
	}
	return nil
}

func printVerification(w io.Writer, v *report.Verification) {
	if len(v.Layers) > 0 {
		printErrors(w, v)
		fmt.Fprintln(w)
	}
	for _, note := range v.Notes {
		fmt.Fprintf(w, "note: %s\n", oneLine(note))
	}
	if v.OK {
		printNeeds(w, v.Needs)
		fmt.Fprintln(w, "ok")
		return
	}
	printProblems(w, v.Problems)
	fmt.Fprintln(w, count(len(v.Problems), "problem"))
}

func printProblems(w io.Writer, problems []report.Problem) {
	for _, text := range problemTexts(problems) {
		fmt.Fprintln(w, oneLine(text))
	}
}

// problemTexts returns a text for each problem, of each kind for the first tensors and a
// count of the others, because a problem of one layer is often one of all.
func problemTexts(problems []report.Problem) (texts []string) {
	const most = 3
	counts := map[string]int{}
	var repeated []string
	for _, p := range problems {
		counts[p.Problem]++
		switch n := counts[p.Problem]; {
		case n == most+1:
			repeated = append(repeated, p.Problem)
		case n > most:
		case p.Tensor == "":
			texts = append(texts, p.Problem)
		default:
			texts = append(texts, p.Tensor+": "+p.Problem)
		}
	}
	for _, text := range repeated {
		texts = append(texts, fmt.Sprintf("%d more: %s", counts[text]-most, text))
	}
	return texts
}

// printNeeds says which releases of an application load which formats, unless all
// releases do.
func printNeeds(w io.Writer, needs []report.Need) {
	for _, n := range needs {
		fmt.Fprintf(w, "needs %s: %s of %s\n", n.Release, count(n.Layers, "layer"), n.Format)
	}
}

func printErrors(w io.Writer, v *report.Verification) {
	t := newTable(1, 2, 3, 4, 5)
	add := func(merged *report.Merged, cells ...string) {
		if v.Merged != nil { // some layer has it
			cells = append(cells, adapted(merged)...)
		}
		t.add(cells...)
	}
	heads := []string{"LAYER", "REL_MSE", "SQNR_DB", "MAX_ABS"}
	if v.Merged != nil {
		heads = append(heads, "KEPT", "CHANGE_DB")
	}
	t.add(heads...)
	for _, l := range v.Layers {
		add(l.Merged, l.Name, figure(l.RelMSE, "%.3e"), figure(l.SQNR, "%.1f"), figure(l.MaxAbs, "%.3g"))
	}
	add(v.Merged, "total", figure(v.Total.RelMSE, "%.3e"), figure(v.Total.SQNR, "%.1f"), "")
	t.print(w)
}

// adapted says what is left of a change that adapters made.
func adapted(m *report.Merged) []string {
	if m == nil {
		return []string{"", ""}
	}
	return []string{figure(m.Kept, "%.3f"), figure(m.SNR, "%.1f")}
}

func figure(x *float64, format string) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf(format, *x)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
