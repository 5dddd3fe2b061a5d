package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tensorpress/tensorpress/report"
)

const (
	defaultMemory = 256 << 20
	leastMemory   = 32 << 20
	mostThreads   = 1024
)

// runFlags are the flags of every command that reads weights.
type runFlags struct {
	threads  int
	memory   size
	progress progressMode
	quiet    bool
	json     bool
	metrics  string
	watched  *watching // once the command runs
}

func (r *runFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	r.memory = size{bytes: defaultMemory, least: leastMemory}
	r.progress = "auto"
	f.IntVar(&r.threads, "threads", 0, "`N` cores to use, 0 for all")
	f.Var(&r.memory, "memory", "bound of the peak memory")
	f.Var(&r.progress, "progress", "auto, plain, json or none, on standard error")
	f.BoolVarP(&r.quiet, "quiet", "q", false, "no progress and no notes")
	f.BoolVar(&r.json, "json", false, "print the result as JSON")
	f.StringVar(&r.metrics, "metrics", "", "keep a `FILE` of figures for Prometheus while this runs; see docs/watching.md")
	group(f, "Running")
	complete(cmd, "progress", func() []string { return progressModes })
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := r.watch(cmd, args); err != nil {
			return err
		}
		return run(cmd, args)
	}
}

func (r *runFlags) check() error {
	if r.threads < 0 || r.threads > mostThreads {
		return fmt.Errorf("--threads %d: want 0 to %d", r.threads, mostThreads)
	}
	return nil
}

// limit sets the Go runtime's threads and memory to what the flags allow.
func (r *runFlags) limit() {
	if r.threads > 0 {
		runtime.GOMAXPROCS(r.threads)
	}
	debug.SetMemoryLimit(max(r.memory.bytes-leastMemory, r.memory.bytes/8*5))
}

// limitPlan bounds memory further where headers alone are read: what they take is then
// far below the bound, and the rest would fill with garbage.
func (r *runFlags) limitPlan() {
	debug.SetMemoryLimit(min(debug.SetMemoryLimit(-1), r.memory.bytes/4*3))
}

// collectRarely keeps the garbage collector from running in commands that read only
// headers and end before garbage matters. The memory limit still holds.
func collectRarely() {
	debug.SetGCPercent(1000)
	debug.SetMemoryLimit(defaultMemory - leastMemory)
}

// watch prepares to show and to record how the run of a command goes.
func (r *runFlags) watch(cmd *cobra.Command, paths []string) (err error) {
	r.watched = watchingOf(cmd)
	mode := r.progress
	if r.quiet {
		mode = "none"
	}
	r.watched.shown(mode, cmd.ErrOrStderr())
	if r.metrics == "" {
		return nil
	}
	if err := checkPlace("metrics", r.metrics, paths, []string{metricsHead}); err != nil {
		return err
	}
	m, err := newMetrics(r.metrics, cmd.Name(), r.watched.begun)
	if err != nil {
		return &runError{fmt.Errorf("--metrics: %w", err)}
	}
	r.watched.metrics = m
	return nil
}

// start applies the limits, and begins to show how the run goes.
func (r *runFlags) start(io.Writer) *watching {
	r.limit()
	r.watched.start()
	return r.watched
}

// finish writes the report and prints what was made, or would be made.
func (r *runFlags) finish(cmd *cobra.Command, file *reportFlag, made *report.Report, err error, show func(io.Writer, *report.Report)) error {
	if err != nil {
		return err
	}
	speak(made)
	r.watched.made(made)
	if file.path != "" {
		addProvenance(made, cmd)
	}
	defer func() {
		r.notes(cmd.ErrOrStderr(), made.Notes)
		r.next(cmd.ErrOrStderr(), made.Next)
	}()
	if err := file.write(made, func() *page { return reportPage(made) }); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return output(cmd.OutOrStdout(), r.json, made, func(w io.Writer) { show(w, made) })
}

// notes prints notes after the result, so that a long table does not push them off the
// screen. The most important one comes last.
func (r *runFlags) notes(w io.Writer, notes []string) {
	if r.quiet {
		return
	}
	for _, note := range notes {
		fmt.Fprintf(w, "tensorpress: note: %s\n", oneLine(note))
	}
}

// next says, after all notes, what to do with the output.
func (r *runFlags) next(w io.Writer, next *report.Next) {
	if !r.quiet && next != nil {
		fmt.Fprintf(w, "tensorpress: next: %s\n", oneLine(next.Text))
	}
}

// given returns a pointer to a flag's value, nil if the flag was not given.
func given[T any](f *pflag.FlagSet, name string, value *T) *T {
	if f.Changed(name) {
		return value
	}
	return nil
}

// complete registers the values that shells offer for a flag.
func complete(cmd *cobra.Command, flag string, values func() []string) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values(), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(errors.Join(errors.New("flag "+flag), err)) // a mistake in this program: there is no such flag
	}
}
