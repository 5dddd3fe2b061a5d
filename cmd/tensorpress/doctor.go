package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/doctor"
	"github.com/tensorpress/tensorpress/report"
)

// errUnfit says that nothing can be quantized on this machine.
var errUnfit = errors.New("this machine is unfit")

func newDoctor() *cobra.Command {
	o := doctor.Options{Folders: map[string]string{}, LeastMemory: leastMemory}
	named := map[string]*string{}
	var asJSON bool
	cmd := command(&cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine has, and what loads outputs here",
		Long: `Say what this machine has, and what loads outputs here.

It names the version, the processor and the instruction set in use, memory and
disk, Python environments with the packages that have to do with quantized
models, and the applications that it finds, with which outputs each of them
loads. Environments are those of $VIRTUAL_ENV, $CONDA_PREFIX and the PATH, and
those of applications; applications are looked for in the current folder, below
it and in the home folder.

It runs nothing of what it finds, and reads names of folders and small files.`,
		Example: `  tensorpress doctor
  tensorpress doctor --comfyui ../ComfyUI --python ~/venv/bin/python`,
		Args: wants(0, 0),
	}, "0 1 2", func(cmd *cobra.Command, _ []string) error {
		for name, path := range named {
			o.Folders[name] = *path
		}
		d, err := doctor.Look(o)
		if err != nil {
			return err
		}
		d.Version, d.Commit = built()
		speak(d)
		if err := output(cmd.OutOrStdout(), asJSON, d, func(w io.Writer) { printDiagnosis(w, d) }); err != nil {
			return err
		}
		if len(d.Problems) > 0 {
			return fmt.Errorf("%w: %s", errUnfit, strings.Join(d.Problems, "; "))
		}
		return nil
	})
	f := cmd.Flags()
	f.StringVar(&o.Python, "python", "", "also look at the Python at `PATH`, an interpreter or an environment")
	for _, a := range app.All() {
		if len(a.Marks) > 0 {
			named[a.Name] = f.String(a.Name, "", "the folder of "+a.Title+" is `PATH`")
		}
	}
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func printDiagnosis(w io.Writer, d *report.Diagnosis) {
	t := newTable()
	t.add("tensorpress", d.Version)
	if d.Commit != "" {
		t.add("commit", d.Commit)
	}
	t.add("system", d.System)
	t.add("processor", fmt.Sprintf("%s, %s", cmp.Or(d.CPU, "unknown"), count(d.Cores, "core")))
	t.add("kernels", fmt.Sprintf("%s, of %s", d.Kernels, strings.Join(d.Sets, ", ")))
	t.add("threads", fmt.Sprint(d.Threads))
	t.add("memory", memoryText(d.Memory))
	for _, disk := range d.Disks {
		t.add("disk", fmt.Sprintf("%s free at %s", sizeOr(disk.Free, 0), disk.Path))
	}
	t.print(w)
	for i := range d.Pythons {
		printPython(w, &d.Pythons[i])
	}
	fmt.Fprintln(w)
	if len(d.Pythons) == 0 {
		fmt.Fprintln(w, "no Python is found: --python names one")
	}
	printFound(w, d)
	for _, note := range d.Notes {
		fmt.Fprintf(w, "note: %s\n", oneLine(note))
	}
}

func memoryText(m report.Memory) string {
	text := sizeOr(m.Total, 1) + " in all, " + sizeOr(m.Available, 1) + " available"
	if m.Limit > 0 {
		text += ", " + report.Size(m.Limit) + " allowed to this process"
	}
	return text
}

// sizeOr is a size as text, of at least so many bytes to be one.
func sizeOr(n, least int64) string {
	if n < least {
		return "unknown"
	}
	return report.Size(n)
}

func printPython(w io.Writer, p *report.Python) {
	fmt.Fprintln(w)
	t := newTable()
	t.add("python", fmt.Sprintf("%s in %s (%s)", p.Version, p.Path, p.From))
	for _, one := range p.Packages {
		t.add("  "+one.Name, one.Version)
	}
	if len(p.Packages) == 0 {
		t.add("", "none of "+strings.Join(app.Packages(), ", "))
	}
	t.print(w)
}

// printFound prints the applications that are there, and names those that are not.
func printFound(w io.Writer, d *report.Diagnosis) {
	t := newTable()
	t.add("APPLICATION", "VERSION", "LOADS", "WHERE")
	var missing []string
	for _, a := range app.All() {
		found := false
		for _, f := range d.Apps {
			if f.App == a.Name {
				t.add(a.Title, cmp.Or(f.Version, "unknown"), f.Loads, f.Path)
				found = true
			}
		}
		if !found {
			missing = append(missing, a.Title)
		}
	}
	if len(d.Apps) > 0 {
		t.print(w)
	}
	if len(missing) > 0 {
		fmt.Fprintf(w, "not found: %s\n", strings.Join(missing, ", "))
	}
}
