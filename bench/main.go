// Command bench measures tensorpress beside cp and the peers: wall time as a
// multiple of cp's, processor seconds, and peak memory.
//
//	go run ./bench                              every row, 2 GiB, 7 runs
//	go run ./bench -rows 'int8|uint4' -n 3      some rows
//	go run ./bench -list                        the rows there are
//	go run ./bench -python venv/bin/python      the peers too
//	go run ./bench -make tall=tall.safetensors  a checkpoint alone
//
// It makes its own checkpoint, in /dev/shm where there is one; -dir chooses a
// disk. Before every run of a row cp copies the same file, and each ratio is
// one to the cp before it. On a busy machine the ratio of processor seconds is
// what can be compared: half of it is the wall time on two idle cores, if the
// work divides evenly.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// options are what the flags say.
type options struct {
	size    int64
	runs    int
	rows    *regexp.Regexp
	dir     string
	program string
	python  string
	extra   []string
	sync    bool
	cold    bool
	list    bool
	make    string
}

func main() {
	o, err := parse()
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse() (o options, err error) {
	size := flag.String("size", "2GiB", "`SIZE` of the checkpoint: MiB or GiB")
	rows := flag.String("rows", "", "`PATTERN` of the rows to run, default all but the peers without -python")
	extra := flag.String("flags", "", "further `FLAGS` for every run of tensorpress, e.g. '--threads 1'")
	flag.IntVar(&o.runs, "n", 7, "`N` runs of each row")
	flag.StringVar(&o.dir, "dir", scratch(), "`FOLDER` for files; they are removed")
	flag.StringVar(&o.program, "tensorpress", "", "`PROGRAM` to measure, default built from the tree")
	flag.StringVar(&o.python, "python", "", "`PYTHON` that has sdnq or convert_to_quant, for the peers")
	flag.BoolVar(&o.sync, "sync", false, "cp and the peers sync their files too, as tensorpress does")
	flag.BoolVar(&o.cold, "cold", false, "put the source out of the page cache before every run (linux)")
	flag.StringVar(&o.make, "make", "", "only make a checkpoint, `KIND=FILE`: an empty KIND is that of -size")
	flag.BoolVar(&o.list, "list", false, "list the rows and stop")
	flag.Parse()
	if o.rows, err = regexp.Compile(*rows); err != nil {
		return o, err
	}
	o.extra = strings.Fields(*extra)
	o.size, err = parseSize(*size)
	return o, err
}

// scratch is a folder in memory where the system has one.
func scratch() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}

func parseSize(text string) (int64, error) {
	for unit, factor := range map[string]float64{"GiB": 1 << 30, "MiB": 1 << 20} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.ParseFloat(number, 64)
			return int64(n * factor), err
		}
	}
	return 0, fmt.Errorf("size %q: want a number with MiB or GiB", text)
}

func run(o options) error {
	if o.list {
		for _, s := range sections {
			fmt.Printf("%s\n", s.title)
			for _, r := range s.rows {
				fmt.Printf("  %s\n", r.name)
			}
		}
		return nil
	}
	if kind, path, ok := strings.Cut(o.make, "="); ok {
		return makeSource(path, kind, o.size)
	}
	dir, err := os.MkdirTemp(o.dir, "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: o, dir: dir, sources: map[string]string{}, made: map[string]string{}}
	if err := b.build(); err != nil {
		return err
	}
	fmt.Printf("%s, %d cores, %s/%s, files in %s\n", processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, o.dir)
	for _, s := range sections {
		if err := b.section(s); err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
	}
	return nil
}

// bench is one run of the program.
type bench struct {
	options
	dir     string
	sources map[string]string // by what they hold
	made    map[string]string // quantized files, by the flags that made them
}

// build builds tensorpress unless a program was named.
func (b *bench) build() error {
	if b.program != "" {
		return nil
	}
	b.program = filepath.Join(b.dir, "tensorpress")
	if runtime.GOOS == "windows" {
		b.program += ".exe"
	}
	cmd := exec.Command("go", "build", "-o", b.program, "github.com/tensorpress/tensorpress/cmd/tensorpress")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// processor is the machine's, as far as the system tells.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			name = strings.Trim(name, " \t:\n")
			if strings.Contains(string(text), " avx512f") {
				name += " with AVX-512"
			}
			return name
		}
	}
	return "a machine"
}
