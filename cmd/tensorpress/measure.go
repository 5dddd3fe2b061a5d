package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/report"
)

type measureFlags struct {
	quantizeFlags
	out []string
}

func newMeasure() *cobra.Command {
	m := &measureFlags{}
	cmd := command(&cobra.Command{
		Use:   "measure SOURCE",
		Short: "Measure what each layer takes and loses in several formats",
		Long: `Measure what each layer of SOURCE takes and loses in every entry of a menu.

The weights are read once and nothing is written but the table. With it,
plan and quantize --budget SIZE --measured FILE choose the best mix of any
size without reading them again.`,
		Example: `  tensorpress measure model.safetensors --out model.measured.json
  tensorpress measure models/big --menu uint4:group-size=32:hadamard,int8,keep
  tensorpress measure model.safetensors --for comfyui --out table.csv
  tensorpress measure model.safetensors --lora style.safetensors --out table.csv`,
		Args: m.recipe.before(wants(1, 1)),
	}, "0 1 2 3 130", m.run)
	f := cmd.Flags()
	m.addUsual(f)
	m.addGiven(f)
	addLora(f, &m.o.Lora, &m.o.LoraPartial, "measure the weights with an adapter merged into them: `FILE[=STRENGTH]`; repeatable; see docs/lora.md")
	m.budget.addMenu(cmd)
	group(f, "What is measured")
	m.addChoice(f)
	group(f, "Which layers")
	f.StringArrayVar(&m.out, "out", nil, "write the table to `FILE`: JSON, which --measured reads, or CSV, by its suffix; repeatable")
	group(f, "Output")
	m.runFlags.add(cmd)
	m.addDetails(f)
	for name, values := range map[string]func() []string{"layout": layoutNames, "names": sideNames, "for": appNames, "preset": presetNames} {
		complete(cmd, name, values)
	}
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return m.check(args) }
	return cmd
}

func (m *measureFlags) check(args []string) error {
	for _, path := range m.out {
		if !slices.Contains([]string{".json", ".csv"}, strings.ToLower(filepath.Ext(path))) {
			return fmt.Errorf("--out %s: the name must end in .json or .csv", path)
		}
		if err := checkPlace("out", path, args, []string{"{\n  \"measurement\":", csvHead}); err != nil {
			return err
		}
	}
	return m.runFlags.check()
}

func (m *measureFlags) run(cmd *cobra.Command, args []string) error {
	o, err := m.options(cmd.Flags())
	if err != nil {
		return err
	}
	at := m.places(cmd.ErrOrStderr())
	from, err := at.source(args[0])
	if err != nil {
		return err
	}
	follow := m.start(cmd.ErrOrStderr())
	o.Threads, o.Memory, o.Progress, o.Measure = m.threads, at.left(m.memory.bytes), follow.update, false
	found, err := reading(cmd.Context(), func() (*report.Measurement, error) {
		return tensorpress.Measure(cmd.Context(), from, o)
	})
	follow.end(err == nil)
	if err != nil {
		return err
	}
	speakAll(found.Notes)
	defer m.notes(cmd.ErrOrStderr(), found.Notes)
	for _, path := range m.out {
		if err := writeMeasurement(path, found); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	return output(cmd.OutOrStdout(), m.json, found, func(w io.Writer) { printMeasurement(w, found) })
}

func writeMeasurement(path string, m *report.Measurement) error {
	var b strings.Builder
	err := error(nil)
	if strings.EqualFold(filepath.Ext(path), ".csv") {
		err = writeCSV(&b, m)
	} else {
		err = writeJSON(&b, m, "  ")
	}
	if err != nil {
		return err
	}
	return writeWhole(path, []byte(b.String()))
}

// csvHead is the first line of a table.
const csvHead = "layer,shape,bytes_in,entry,bytes,rel_mse\n"

// writeCSV writes a line for each layer and entry.
func writeCSV(w io.Writer, m *report.Measurement) error {
	if _, err := io.WriteString(w, csvHead); err != nil {
		return err
	}
	c := csv.NewWriter(w)
	for _, l := range m.Layers {
		for _, choice := range l.Choices {
			rel := ""
			if choice.RelMSE != nil {
				rel = strconv.FormatFloat(*choice.RelMSE, 'g', -1, 64)
			}
			shape := strings.ReplaceAll(shapeText(l.Shape), "×", "x")
			if err := c.Write([]string{l.Name, shape, strconv.FormatInt(l.BytesIn, 10), choice.Entry, strconv.FormatInt(choice.Bytes, 10), rel}); err != nil {
				return err
			}
		}
	}
	c.Flush()
	return c.Error()
}

// printMeasurement prints what each entry comes to where all layers have it.
func printMeasurement(w io.Writer, m *report.Measurement) {
	t := newTable(1, 2, 3, 4)
	t.add("ENTRY", "LAYERS", "BYTES", "BITS", "REL_MSE")
	for _, e := range m.Menu {
		t.add(e.Name, fmt.Sprint(e.Layers), report.Size(e.BytesOut), fmt.Sprintf("%.2f", 8*float64(e.BytesOut)/float64(max(m.Values, 1))), figure(e.RelMSE, "%.3e"))
	}
	t.print(w)
	fmt.Fprintln(w)
	s := newTable()
	s.add("layout", m.Layout)
	s.add("layers", fmt.Sprintf("%d to choose for", len(m.Layers)))
	s.add("fingerprint", m.Fingerprint)
	s.add("time", fmt.Sprintf("%.2f s", m.Seconds))
	s.print(w)
}
