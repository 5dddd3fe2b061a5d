package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/internal/convert"
	"github.com/tensorpress/tensorpress/report"
)

// part is the value of --part: which of how many.
type part struct {
	text     string
	index, n int
}

// Set parses I/N, or takes the index, and the count where it says none, from a scheduler.
func (p *part) Set(text string) (err error) {
	p.text = text
	index, count, divided := strings.Cut(text, "/")
	n := 0
	if divided {
		if n, err = strconv.Atoi(count); err != nil || n < 1 {
			return errPart
		}
	}
	if index == "auto" {
		p.index, p.n, err = scheduled(n, os.Getenv)
		return err
	}
	p.n = n
	if p.index, err = strconv.Atoi(index); err != nil || !divided {
		return errPart
	}
	if p.index < 1 || p.index > n {
		return fmt.Errorf("want I from 1 to %d", n)
	}
	return nil
}

var errPart = errors.New("want I/N, such as 3/8, auto or auto/N")

func (p *part) String() string { return p.text }

// Type names the value.
func (p *part) Type() string { return "I/N" }

// scheduler is a program that starts many tasks of one kind and tells each which it is, by
// variables of the environment.
type scheduler struct {
	name, index string
	first       string // the variable of the first index; "" where that is 0
	step        string // likewise of the distance of two, "" for 1
	count       string // "" where nothing tells it
}

// schedulers are those that --part auto knows, the most particular first.
var schedulers = []scheduler{
	{"Slurm", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT"},
	{"AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", "", "", "AWS_BATCH_JOB_ARRAY_SIZE"},
	{"Kubernetes", "JOB_COMPLETION_INDEX", "", "", ""},
}

// scheduled is the part that a scheduler says; n is the count that was given, 0 for none.
func scheduled(n int, getenv func(string) string) (index, count int, err error) {
	for _, s := range schedulers {
		if getenv(s.index) != "" {
			return s.part(n, getenv)
		}
	}
	var names []string
	for _, s := range schedulers {
		names = append(names, fmt.Sprintf("%s (%s)", s.index, s.name))
	}
	return 0, 0, fmt.Errorf("none of %s is set: give I/N", strings.Join(names, ", "))
}

func (s scheduler) part(n int, getenv func(string) string) (index, count int, err error) {
	number := func(name string, missing int) int {
		text := getenv(name)
		if name == "" || text == "" {
			return missing
		}
		x, e := strconv.Atoi(text)
		if e != nil || x < 0 {
			err = errors.Join(err, fmt.Errorf("%s is %q: want a number", name, text))
		}
		return x
	}
	at, first, step := number(s.index, 0), number(s.first, 0), max(number(s.step, 1), 1)
	count = number(s.count, n)
	switch index = (at-first)/step + 1; {
	case err != nil:
		return 0, 0, err
	case count == 0 && s.count == "":
		return 0, 0, fmt.Errorf("%s does not say how many tasks there are: give auto/N", s.name)
	case count == 0:
		return 0, 0, fmt.Errorf("%s is not set: give auto/N", s.count)
	case n != 0 && n != count:
		return 0, 0, fmt.Errorf("%s is %d: want auto/%d, or I/N", s.count, count, count)
	case index > count && s.first == "":
		return 0, 0, fmt.Errorf("%s is %d, and of %d tasks the last is %d: give auto/N with the number of tasks", s.index, at, count, count-1)
	case at < first || (at-first)%step != 0 || index > count: // an array such as 1,4,5
		return 0, 0, fmt.Errorf("%s is %d, and the array has gaps, so that it does not say which of %d parts this is: give I/N", s.index, at, count)
	}
	return index, count, nil
}

// afterError says what is kept of a run that failed, "" for nothing.
func afterError(err error) string {
	kept, ok := errors.AsType[*convert.KeptError](err)
	if !ok {
		return ""
	}
	switch {
	case kept.Part:
		return fmt.Sprintf("%d of %d shards of this part are finished and stay in %s: run the same again to go on, or delete it to give up all parts", kept.Done, kept.Of, kept.Folder)
	case kept.Done == 0:
		return fmt.Sprintf("no shard is finished yet; %s stays: run the same again, or delete it to give up", kept.Folder)
	}
	return fmt.Sprintf("%d of %d shards are finished and stay in %s: run the same again to go on, or delete it to give up", kept.Done, kept.Of, kept.Folder)
}

// isQuiet reports whether a command was told to give no notes.
func isQuiet(cmd *cobra.Command) bool {
	quiet := cmd.Flags().Lookup("quiet")
	return quiet != nil && quiet.Value.String() == "true"
}

// printShards prints which shards are of a part.
func printShards(w io.Writer, s *report.Shards) {
	if s == nil || s.Parts == 0 {
		return
	}
	fmt.Fprintln(w)
	t := newTable(1)
	t.add("SHARD", "OUT", "")
	for _, f := range s.Files {
		there := ""
		if f.Kept {
			there = "is there"
		}
		t.add(f.Name, report.Size(f.Bytes), there)
	}
	t.print(w)
}

// idle reports whether a run has a part that no shards are of: of all else there is nothing
// to say then.
func idle(r *report.Report) bool {
	return r.Shards != nil && r.Shards.Parts > 0 && len(r.Shards.Files) == 0
}

// partText is a line about a part.
func partText(s *report.Shards) string {
	if len(s.Files) == 0 {
		return fmt.Sprintf("%d of %d: none of %s", s.Part, s.Parts, count(s.Count, "shard"))
	}
	return fmt.Sprintf("%d of %d: %d of %d shards, %s", s.Part, s.Parts, len(s.Files), s.Count, report.Size(s.Bytes()))
}

func newFinish() *cobra.Command {
	var o tensorpress.FinishOptions
	var flags runFlags
	cmd := command(&cobra.Command{
		Use:   "finish DEST",
		Short: "Put an output in place that was written in parts",
		Long: `Put an output in place that was written in parts, by quantize --part.

It checks that all parts are there, by their bytes, and of one plan, and puts
DEST in place in one step. Run again once DEST is in place, it does nothing.`,
		Example: `  tensorpress quantize models/big models/small --part 1/2
  tensorpress quantize models/big models/small --part 2/2
  tensorpress finish models/small`,
		Args: wants(1, 1),
	}, "0 1 2 130", func(cmd *cobra.Command, args []string) error {
		to, err := placesOf(cmd.ErrOrStderr()).keeper(args[0])
		if err != nil {
			return err
		}
		follow := flags.start(cmd.ErrOrStderr())
		o.Threads, o.Progress = flags.threads, follow.update
		r, err := tensorpress.Finish(cmd.Context(), to, o)
		follow.end(err == nil)
		if err != nil {
			return err
		}
		speakAll(r.Notes)
		defer func() {
			flags.notes(cmd.ErrOrStderr(), r.Notes)
			flags.next(cmd.ErrOrStderr(), r.Next)
		}()
		return output(cmd.OutOrStdout(), flags.json, r, func(w io.Writer) { printFinished(w, r) })
	})
	f := cmd.Flags()
	f.BoolVar(&o.Force, "force", false, "replace DEST if it is an output and holds nothing else")
	group(f, "Output")
	flags.add(cmd)
	cmd.PreRunE = func(*cobra.Command, []string) error { return flags.check() }
	return cmd
}

func printFinished(w io.Writer, r *report.Finished) {
	t := newTable()
	if r.Already {
		t.add("there", r.Dest+" is in place already")
		t.print(w)
		return
	}
	t.add("wrote", r.Dest)
	t.add("shards", fmt.Sprint(r.Shards))
	t.add("bytes", report.Size(r.Bytes))
	t.add("time", fmt.Sprintf("%.2f s", r.Seconds))
	t.print(w)
}
