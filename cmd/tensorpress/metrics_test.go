package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// families reads a file of --metrics as Prometheus does.
func families(t *testing.T, path string) map[string]*dto.MetricFamily {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	found, err := p.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return found
}

// lint holds names against Prometheus' own rules.
func lint(t *testing.T, all map[string]*dto.MetricFamily) {
	t.Helper()
	for name, f := range all {
		if !strings.HasPrefix(name, "tensorpress_") || f.GetHelp() == "" {
			t.Errorf("%s: has another name, or no help", name)
		}
		switch kind := f.GetType(); kind {
		case dto.MetricType_COUNTER, dto.MetricType_GAUGE:
			if strings.HasSuffix(name, "_total") != (kind == dto.MetricType_COUNTER) {
				t.Errorf("%s is a %v", name, kind)
			}
		default:
			t.Errorf("%s is a %v", name, kind)
		}
		for _, unit := range []string{"milliseconds", "minutes", "megabytes", "percent"} {
			if strings.Contains(name, unit) {
				t.Errorf("%s has no base unit", name)
			}
		}
	}
}

// sampleOf is the value of a sample with a label's value, of the only sample for "".
func sampleOf(t *testing.T, f *dto.MetricFamily, with string) float64 {
	t.Helper()
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			if with == "" || l.GetValue() == with {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Errorf("%s has no %q", f.GetName(), with)
	return 0
}

// TestMetrics: the file is what Prometheus reads, as long as the run goes on and after it,
// and remembers when a run was last completed.
func TestMetrics(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, `the "night's" {work} 2.prom`)
	begun := time.Unix(1_800_000_000, 0)
	m, err := newMetrics(path, "quantize", begun)
	if err != nil {
		t.Fatal(err)
	}
	all := families(t, path)
	lint(t, all)
	if all["tensorpress_exit_status"] != nil || all[successName] != nil || all["tensorpress_layers"] != nil {
		t.Error("a run that begins has ended")
	}
	if got := sampleOf(t, all["tensorpress_info"], `the "night's" {work} 2`); got != 1 {
		t.Errorf("info is %v", got)
	}

	r := &watch.Run{}
	r.Progress(3e9, 10e9)
	r.Read(4e9)
	r.Wrote(1e9)
	r.Requested()
	r.Retried(watch.Failed)
	r.Enter(watch.Writing)
	clock := watch.NewClock(r, begun)
	for elapsed := time.Duration(0); elapsed <= 25*time.Second; elapsed += time.Second {
		f := clock.Look(begun.Add(elapsed))
		m.tick(&f)
		now := families(t, path)
		if got, want := sampleOf(t, now["tensorpress_duration_seconds"], ""), (elapsed / metricsPause * metricsPause).Seconds(); got != want {
			t.Errorf("after %v the file is of %v s, want %v", elapsed, got, want)
		}
	}
	all = families(t, path)
	for name, want := range map[string]float64{
		"work_bytes": 10e9, "work_done_bytes": 3e9, "read_bytes_total": 4e9, "written_bytes_total": 1e9, "network_requests_total": 1, "start_time_seconds": 1.8e9,
	} {
		if got := sampleOf(t, all["tensorpress_"+name], ""); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if sampleOf(t, all["tensorpress_network_retries_total"], "5xx") != 1 || sampleOf(t, all["tensorpress_phase"], "writing") != 1 || sampleOf(t, all["tensorpress_phase"], "hashing") != 0 {
		t.Error("a reason or the phase is another")
	}

	m.count(&report.Report{Layers: []report.Layer{{Action: report.Keep}, {Action: report.Quantize}, {Action: report.Quantize}}})
	f := clock.Look(begun.Add(30 * time.Second))
	if err := m.end(&f, 0); err != nil {
		t.Fatal(err)
	}
	all = families(t, path)
	lint(t, all)
	if sampleOf(t, all["tensorpress_layers"], "quantize") != 2 || sampleOf(t, all["tensorpress_exit_status"], "") != 0 || sampleOf(t, all[successName], "") != 1_800_000_030 ||
		sampleOf(t, all["tensorpress_work_done_bytes"], "") != 10e9 || sampleOf(t, all["tensorpress_phase"], "writing") != 0 {
		t.Error("the end is another")
	}

	again, err := newMetrics(path, "quantize", begun.Add(time.Hour))
	if err == nil {
		err = again.end(&f, 3)
	}
	if err != nil {
		t.Fatal(err)
	}
	all = families(t, path)
	if sampleOf(t, all[successName], "") != 1_800_000_030 || sampleOf(t, all["tensorpress_exit_status"], "") != 3 {
		t.Error("a run that failed counts as completed, or the one before is forgotten")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v are left", left, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o444 != 0o444 {
		t.Errorf("not everybody may read it: %v, %v", info.Mode(), err)
	}
	var none *metrics
	none.tick(&f)
	none.count(nil)
	if err := none.end(&f, 0); err != nil {
		t.Error(err)
	}
}
