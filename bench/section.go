package main

import (
	_ "embed"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed sdnq.py
var sdnqScript string

// result is what a row took over all runs.
type result struct {
	row
	ratios, work, processor, copies, selves, times []float64
	peak                                           int64
}

// section runs the rows that were asked for and prints their table.
func (b *bench) section(s section) error {
	var results []*result
	for _, r := range s.rows {
		if b.rows.MatchString(r.name) && (s.title != "Peers" || b.python != "") {
			results = append(results, &result{row: r})
		}
	}
	if len(results) == 0 {
		return nil
	}
	for run := range b.runs {
		for _, r := range results {
			if r.few && run >= 3 {
				continue
			}
			if err := b.once(s, r); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			if r.source != "" && !s.ms {
				b.drop(r.source) // for the next one's room
			}
		}
	}
	printTable(s, results)
	return nil
}

// once runs cp and then the row.
func (b *bench) once(s section, r *result) error {
	if s.ms {
		return b.start(r)
	}
	source, err := b.source(r.source)
	if err != nil {
		return err
	}
	name, args, dest, err := b.commandOf(r.row, source)
	if err != nil {
		return err
	}
	copied := filepath.Join(b.dir, "copy")
	if err := b.ready(source); err != nil {
		return err
	}
	cp, err := b.copied(source, copied)
	if err != nil {
		return err
	}
	os.Remove(copied)
	if err := b.ready(source); err != nil {
		return err
	}
	defer os.RemoveAll(dest)
	defer os.Remove(filepath.Join(b.dir, "quantization_config.json"))
	took, err := b.synced(dest, name, args...)
	if err != nil {
		return err
	}
	r.add(cp, took)
	return nil
}

// start runs a command that reads headers at most, several times for one
// figure: the first run may be one that loads the program.
func (b *bench) start(r *result) error {
	args := []string{r.op}
	if r.source != "" {
		source, err := b.source(r.source)
		if err != nil {
			return err
		}
		args = append(append(args, source), strings.Fields(r.flags)...)
	}
	for range 5 {
		took, err := command(b.program, args...)
		if err != nil {
			return err
		}
		r.add(took, took)
	}
	return nil
}

func (r *result) add(cp, took sample) {
	r.copies = append(r.copies, cp.wall.Seconds())
	r.work = append(r.work, took.processor.Seconds()/max(cp.processor.Seconds(), 0.001))
	r.ratios = append(r.ratios, took.wall.Seconds()/cp.wall.Seconds())
	r.times = append(r.times, 1000*took.wall.Seconds())
	r.processor = append(r.processor, took.processor.Seconds())
	if took.self > 0 {
		r.selves = append(r.selves, took.self.Seconds()/cp.wall.Seconds())
	}
	r.peak = max(r.peak, took.peak)
}

// ready puts the source out of the cache if asked.
func (b *bench) ready(source string) error {
	if !b.cold {
		return nil
	}
	return evict(source)
}

// commandOf is the command line of a row and the file that it writes.
func (b *bench) commandOf(r row, source string) (name string, args []string, dest string, err error) {
	dest = filepath.Join(b.dir, "out.safetensors")
	switch r.op {
	case "sdnq":
		dest = filepath.Join(b.dir, "model.safetensors")
		return b.python, []string{"-c", sdnqScript, source, b.dir, r.flags}, dest, nil
	case "convert_to_quant":
		program := filepath.Join(filepath.Dir(b.python), "convert_to_quant")
		args = append([]string{"-i", source, "-o", dest, "--comfy_quant", "--simple"}, strings.Fields(r.flags)...)
		return program, args, dest, nil
	}
	args, err = b.argsOf(r, source, dest)
	return b.program, append(append(args, strings.Fields(r.late)...), b.extra...), dest, err
}

func (b *bench) argsOf(r row, source, dest string) ([]string, error) {
	if r.op == "quantize" {
		return append([]string{r.op, source, dest, "-q", "--force"}, strings.Fields(r.flags)...), nil
	}
	quantized, err := b.quantized(r.flags, source)
	if r.op == "verify" {
		return []string{r.op, quantized, "--source", source, "--progress", "none"}, err
	}
	return []string{r.op, quantized, dest, "-q", "--force"}, err
}

// quantized makes what dequantize and verify read. One is kept at a time.
func (b *bench) quantized(flags, source string) (string, error) {
	if path, ok := b.made[flags]; ok {
		return path, nil
	}
	folder := filepath.Join(b.dir, "quantized")
	if err := os.RemoveAll(folder); err != nil {
		return "", err
	}
	clear(b.made)
	if err := os.Mkdir(folder, 0o777); err != nil {
		return "", err
	}
	path := filepath.Join(folder, "small.safetensors")
	args := append([]string{"quantize", source, path, "-q"}, strings.Fields(flags)...)
	if out, err := exec.Command(b.program, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	b.made[flags] = path
	return path, nil
}

func printTable(s section, results []*result) {
	fmt.Printf("\n## %s\n\n", s.title)
	if s.ms {
		fmt.Println("| row | reach | ms: least | median | greatest | processor s | peak MiB |\n|---|---|---|---|---|---|---|")
	} else {
		fmt.Println("| row | reach | wall × cp: least | median | greatest | processor × cp | wall s | processor s | peak MiB | cp: wall s | least ÷ cp's least |\n|---|---|---|---|---|---|---|---|---|---|---|")
	}
	for _, r := range results {
		processor := spreadOf(r.processor).median
		if s.ms {
			fmt.Printf("| %s | %s | %s | %.3f | %d |\n", r.name, reachText(r.reach), spreadOf(r.times).text(1), processor, r.peak>>20)
			continue
		}
		copies, times := spreadOf(r.copies), spreadOf(r.times)
		fmt.Printf("| %s | %s | %s | %.2f | %.2f | %.2f | %d | %.2f | %.2f |\n", r.name, reachText(r.reach), spreadOf(r.ratios).text(2), spreadOf(r.work).median,
			times.median/1000, processor, r.peak>>20, copies.median, times.least/1000/fastest(results, r))
	}
	printSelves(results)
}

// fastest is the least time of cp beside rows with the source of one: where the
// system has to find memory first it takes several times as long.
func fastest(results []*result, of *result) float64 {
	least := math.Inf(1)
	for _, r := range results {
		if r.source == of.source {
			least = min(least, slices.Min(r.copies))
		}
	}
	return least
}

// printSelves prints what peers took once their libraries were loaded.
func printSelves(results []*result) {
	for _, r := range results {
		if len(r.selves) > 0 {
			fmt.Printf("\n%s without its imports: %.1f × cp\n", r.name, spreadOf(slices.Clone(r.selves)).median)
		}
	}
}

func reachText(reach float64) string {
	if reach == 0 {
		return ""
	}
	return fmt.Sprintf("%.3g", reach)
}
