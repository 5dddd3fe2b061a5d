package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// budgetFlags name a size for the output, and what to choose among.
type budgetFlags struct {
	size      budgetSize
	targetBPW float64
	menu      string
	measured  string
	lock      lockFlag
	flags     *pflag.FlagSet
}

func (b *budgetFlags) add(cmd *cobra.Command) {
	b.flags = cmd.Flags()
	b.flags.Var(&b.size, "budget", "choose for each layer what makes the output lose least within that many bytes, or that part of the source's")
	b.flags.Float64Var(&b.targetBPW, "target-bpw", 0, "the same within `X` bits for each value of all tensors")
	b.addMenu(cmd)
	b.flags.StringVar(&b.measured, "measured", "", "take the errors from a `FILE` of tensorpress measure, and read no weights for them")
	b.lock.add(b.flags)
}

func (b *budgetFlags) addMenu(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.menu, "menu", "", "choose among these: an application's `NAME or LIST` of dtypes with settings after colons: uint4:group-size=32,int8,keep (default what --for loads)")
	complete(cmd, "menu", appNames)
}

// check refuses flags that would have no effect.
func (b *budgetFlags) check(args []string) error {
	sized := b.flags.Changed("budget") || b.flags.Changed("target-bpw")
	for _, name := range []string{"menu", "measured", "lock"} {
		if !sized && b.flags.Changed(name) {
			return fmt.Errorf("--%s is for --budget or --target-bpw: name a size", name)
		}
	}
	if b.flags.Changed("target-bpw") && !(b.targetBPW > 0 && b.targetBPW <= math.MaxInt32) {
		return fmt.Errorf("--target-bpw %g: want more than 0, and a size that can be counted", b.targetBPW)
	}
	return b.lock.check(args)
}

// options adds what the flags say.
func (b *budgetFlags) options(o *tensorpress.Options) (err error) {
	o.Budget, o.BudgetShare, o.TargetBPW = b.size.bytes, b.size.share, b.targetBPW
	if b.menu != "" {
		if o.Menu, err = tensorpress.ParseMenu(b.menu); err != nil {
			return err
		}
	}
	if b.measured != "" {
		o.Measured, err = readMeasurement(b.measured)
	}
	return err
}

// write writes the lock of what was chosen.
func (b *budgetFlags) write(f *pflag.FlagSet, r *report.Report) error { return b.lock.write(f, r) }

// budgetSize is a number of bytes or a part of the source's: 11GiB, 60%.
type budgetSize struct {
	text  string
	bytes int64
	share float64
}

// Set parses a size or a part.
func (b *budgetSize) Set(text string) (err error) {
	*b = budgetSize{text: text}
	if digits, part := strings.CutSuffix(strings.TrimSpace(text), "%"); part {
		b.share, err = strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if b.share /= 100; err != nil || !(b.share > 0) || math.IsInf(b.share, 0) {
			return errors.New("want a part of the source such as 60%, or a size such as 11GiB")
		}
		return nil
	}
	if b.bytes, err = parseSize(text); err == nil && b.bytes < 1 {
		err = errors.New("want more than 0 bytes")
	}
	return err
}

// String returns what Set was given.
func (b *budgetSize) String() string { return b.text }

// Type names the value in help.
func (b *budgetSize) Type() string { return "SIZE|N%" }

// mostMeasured is the most bytes of a measurement that are read: a million choices.
const mostMeasured = 256 << 20

// readMeasurement reads a file of tensorpress measure.
func readMeasurement(path string) (*report.Measurement, error) {
	text, err := checkpoint.ReadFile(path, mostMeasured)
	if err != nil {
		return nil, fmt.Errorf("--measured: %w", err)
	}
	m, err := parseMeasurement(text)
	if err != nil {
		return nil, usage.Errorf("--measured %s: %w", path, err)
	}
	return m, nil
}

var errNoMeasurement = errors.New("is no measurement: tensorpress measure SOURCE --out FILE.json makes one")

// parseMeasurement reads a measurement. What it says is held against the source later.
func parseMeasurement(text []byte) (*report.Measurement, error) {
	m := new(report.Measurement)
	if err := json.Unmarshal(text, m); err != nil || m.Measurement == 0 || len(m.Menu) == 0 {
		return nil, errNoMeasurement
	}
	return m, nil
}

// printBudget prints what was chosen for a size, and what is next to it.
func printBudget(w io.Writer, b *report.Budget) {
	if b == nil {
		return
	}
	t := newTable(1, 2)
	t.add("", "BYTES", "REL_MSE")
	t.add("budget", exact(b.Bytes), "")
	smaller, larger := beside(b)
	for _, p := range smaller {
		t.add("  smaller", exact(p.Bytes), fmt.Sprintf("%.3e", p.RelMSE))
	}
	t.add("chosen", exact(b.Chosen.Bytes), fmt.Sprintf("%.3e", b.Chosen.RelMSE))
	for _, p := range larger {
		t.add("  larger", exact(p.Bytes), fmt.Sprintf("%.3e", p.RelMSE))
	}
	for _, e := range b.Menu {
		if e.Layers == 0 {
			continue
		}
		t.add("all "+e.Name, exact(e.BytesOut), figure(e.RelMSE, "%.3e"))
	}
	fmt.Fprintln(w)
	t.print(w)
	if b.Gap > 0 {
		fmt.Fprintf(w, "no other choice of this size loses more than %.2g%% less\n", 100*b.Gap)
	}
}

// exact is a size with all its digits, as budgets count.
func exact(n int64) string { return fmt.Sprintf("%s (%d)", report.Size(n), n) }

// beside are the points of the frontier next to the chosen one.
func beside(b *report.Budget) (smaller, larger []report.Point) {
	const most = 2
	for _, p := range b.Frontier {
		switch {
		case p.Bytes < b.Chosen.Bytes && p.RelMSE > b.Chosen.RelMSE:
			smaller = append(smaller, p)
		case p.Bytes > b.Chosen.Bytes && p.RelMSE < b.Chosen.RelMSE:
			larger = append(larger, p)
		}
	}
	return smaller[max(len(smaller)-most, 0):], larger[:min(len(larger), most)]
}
