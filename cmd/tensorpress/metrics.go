package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// metricsPause is how often the file of --metrics is written while a run goes on.
const metricsPause = 10 * time.Second

// metrics is a file in the text format of Prometheus, for whoever collects such files. It
// is whole at any time. A nil one takes everything and does nothing.
type metrics struct {
	path    string
	command string
	begun   time.Time
	next    time.Duration // when it is written next
	layers  map[report.Action]int
	success float64 // when the last run that the file tells of was completed, 0 for never
}

// newMetrics begins a file, so that what keeps it from being written shows before the work.
func newMetrics(path, command string, begun time.Time) (*metrics, error) {
	m := &metrics{path: path, command: command, begun: begun, next: metricsPause}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	m.success = lastSuccess(old)
	return m, m.write(&watch.Figures{}, -1)
}

// lastSuccess finds when a run of an older file was completed.
func lastSuccess(text []byte) float64 {
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, successName+"{") {
			line = strings.TrimSpace(line)
			at, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64) // a label may have anything
			if err == nil {
				return at
			}
		}
	}
	return 0
}

// metricsHead begins every file.
const metricsHead = "# HELP tensorpress_info "

const successName = "tensorpress_last_success_timestamp_seconds"

// tick writes the file where it is time to.
func (m *metrics) tick(f *watch.Figures) {
	if m != nil && f.Elapsed >= m.next {
		m.next = f.Elapsed + metricsPause
		_ = m.write(f, -1) // the end says what keeps it from being written
	}
}

// count takes the layers of a report.
func (m *metrics) count(r *report.Report) {
	if m == nil || r == nil {
		return
	}
	m.layers = map[report.Action]int{}
	for i := range r.Layers {
		m.layers[r.Layers[i].Action]++
	}
}

// end writes how the run has ended.
func (m *metrics) end(f *watch.Figures, status int) error {
	if m == nil {
		return nil
	}
	if status == 0 {
		f.Done = f.Total
		m.success = seconds(m.begun.Add(f.Elapsed))
	}
	return m.write(f, status)
}

func seconds(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }

// write replaces the file; the status is negative while the run goes on.
func (m *metrics) write(f *watch.Figures, status int) error {
	return replaceFile(m.path, m.text(f, status), 0o644) // whoever collects is another user, and takes what ends in .prom
}

// exposition is text in the format of Prometheus.
type exposition struct {
	bytes.Buffer
	run string // the label of every sample
}

// family begins samples of one name.
func (e *exposition) family(name, kind, help string) {
	fmt.Fprintf(e, "# HELP tensorpress_%s %s\n# TYPE tensorpress_%s %s\n", name, help, name, kind)
}

// sample adds one; labels are names and values in turn.
func (e *exposition) sample(name string, value float64, labels ...string) {
	fmt.Fprintf(e, "tensorpress_%s{run=\"%s\"", name, labelText(e.run))
	for pair := range slices.Chunk(labels, 2) {
		fmt.Fprintf(e, ",%s=\"%s\"", pair[0], labelText(pair[1]))
	}
	fmt.Fprintf(e, "} %s\n", strconv.FormatFloat(value, 'g', -1, 64))
}

var labelText = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace

// one adds a family of one sample.
func (e *exposition) one(name, kind, help string, value float64) {
	e.family(name, kind, help)
	e.sample(name, value)
}

// text is what the file says. Several of them, of runs that go on at the same time, are
// told apart by the name of the file.
func (m *metrics) text(f *watch.Figures, status int) []byte {
	name := filepath.Base(m.path)
	e := &exposition{run: strings.ToValidUTF8(strings.TrimSuffix(name, filepath.Ext(name)), "?")}
	e.family("info", "gauge", "The program and the command that runs, or ran last.")
	e.sample("info", 1, "version", versionText(), "command", m.command)
	e.one("start_time_seconds", "gauge", "When the run began, in seconds since 1970.", seconds(m.begun))
	e.one("duration_seconds", "gauge", "How long the run has taken.", f.Elapsed.Seconds())
	e.family("phase", "gauge", "What the run is at: 1 for one phase.")
	for i, phase := range watch.Phases {
		at := 0.0
		if status < 0 && watch.Phase(i) == f.Phase {
			at = 1
		}
		e.sample("phase", at, "phase", phase)
	}
	e.one("work_bytes", "gauge", "All work that is known.", float64(f.Total))
	e.one("work_done_bytes", "gauge", "Work that is done.", float64(f.Done))
	e.one("read_bytes_total", "counter", "Bytes of sources that were read.", float64(f.Read))
	e.one("written_bytes_total", "counter", "Bytes of the output that were written.", float64(f.Written))
	e.one("uploaded_bytes_total", "counter", "Bytes of the output that are with a store.", float64(f.Uploaded))
	e.one("network_requests_total", "counter", "Requests to hubs, web servers and stores.", float64(f.Requests))
	e.family("network_retries_total", "counter", "Requests that had to be made again, by why.")
	for i, n := range f.Retries {
		e.sample("network_retries_total", float64(n), "reason", watch.Reason(i).String())
	}
	if m.layers != nil {
		e.family("layers", "gauge", "Layers of the result, by what became of them.")
		for _, action := range slices.Sorted(maps.Keys(m.layers)) {
			e.sample("layers", float64(m.layers[action]), "action", string(action))
		}
	}
	if peak := peakMemory(); peak > 0 {
		e.one("peak_memory_bytes", "gauge", "The most memory that the process had.", float64(peak))
	}
	if m.success > 0 {
		e.one(strings.TrimPrefix(successName, "tensorpress_"), "gauge", "When a run was last completed, in seconds since 1970.", m.success)
	}
	if status >= 0 {
		e.one("exit_status", "gauge", "The exit status of the run, once it is over.", float64(status))
	}
	return e.Bytes()
}

// field is a number of a file of the system's that has a name and a number of kB a line.
func field(path, name string) int64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10
		}
	}
	return 0
}
