package doctor

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// An environment of Python's is found by its folders and read by the names in them: what
// pip installs leaves a folder NAME-VERSION.dist-info. No interpreter runs.

// pythons adds the environments that are named, in use, or first on the PATH.
func (l *look) pythons() error {
	if l.Python != "" && !l.add(l.Python, "as named") {
		return usage.Errorf("%s is no Python and no environment of one: name the interpreter, or the folder above its bin", l.Python)
	}
	for _, name := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		if value, from := environment(name); value != "" {
			l.add(value, from)
		}
	}
	for _, name := range []string{"python3", "python"} {
		path := onPath(name)
		if path == "" {
			continue
		}
		if !l.add(cmp.Or(behindShim(path), path), name+" on the PATH") {
			l.d.Notes = append(l.d.Notes, path+" is no interpreter that lies in its environment, but a program that chooses one: `Python` names it")
		}
	}
	return nil
}

// behindShim is the environment that pyenv's script of that path would choose, by the
// files that say so; "" for any other program.
func behindShim(program string) string {
	root := filepath.Dir(filepath.Dir(program))
	if filepath.Base(filepath.Dir(program)) != "shims" || !isFolder(filepath.Join(root, "versions")) {
		return ""
	}
	text := cmp.Or(os.Getenv("PYENV_VERSION"), readAbove(".python-version"), read(filepath.Join(root, "version")))
	for _, name := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' || r == ':' || r == ' ' }) {
		if path := filepath.Join(root, "versions", name); filepath.Base(name) == name && name != ".." && isFolder(path) {
			return path
		}
	}
	return ""
}

// readAbove reads a file of that name in the current folder, or in the nearest one above it
// that has one.
func readAbove(name string) string {
	folder, err := filepath.Abs(".")
	for err == nil {
		if text := read(filepath.Join(folder, name)); text != "" {
			return text
		}
		above := filepath.Dir(folder)
		if above == folder {
			break
		}
		folder = above
	}
	return ""
}

// onPath finds a program in the absolute folders of the PATH, and looks at nothing else.
func onPath(name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	for _, folder := range filepath.SplitList(os.Getenv("PATH")) {
		if path := filepath.Join(folder, name); filepath.IsAbs(folder) && isFile(path) {
			return path
		}
	}
	return ""
}

// add adds an environment by its interpreter or folder, unless it is there. It reports
// whether that is one.
func (l *look) add(path, from string) bool {
	e, ok := environmentAt(path)
	if !ok {
		return false
	}
	if slices.ContainsFunc(l.d.Pythons, func(p report.Python) bool { return p.Path == e.prefix }) {
		return true
	}
	l.d.Pythons = append(l.d.Pythons, report.Python{Path: e.prefix, From: from, Version: e.version, Packages: e.packages()})
	return true
}

// env is an environment of Python's.
type env struct {
	prefix  string
	version string   // 3.11, or 3.11.2
	sites   []string // folders of packages, those that come first count
}

// programs are where an interpreter lies in its environment.
var programs = []string{"bin/python3", "bin/python", "Scripts/python.exe", "python.exe"}

// environmentAt finds the environment of an interpreter, or at a folder.
func environmentAt(path string) (env, bool) {
	path, err := filepath.Abs(path)
	if err != nil {
		return env{}, false
	}
	program := path
	if isFolder(path) {
		i := slices.IndexFunc(programs, func(name string) bool { return isFile(filepath.Join(path, name)) })
		if i < 0 {
			return env{}, false
		}
		program = filepath.Join(path, programs[i])
	}
	if !isFile(program) || !strings.HasPrefix(strings.ToLower(filepath.Base(program)), "python") {
		return env{}, false
	}
	if e, ok := virtual(above(program)); ok {
		return e, true
	}
	if to, err := filepath.EvalSymlinks(program); err == nil {
		program = to
	}
	prefix := above(program)
	e := env{prefix: prefix, version: versionAt(prefix, program)}
	if e.version == "" { // some other program, or a script that chooses an interpreter
		return env{}, false
	}
	e.sites = append(sitesOf(prefix, e.version), usersSites(e.version)...)
	return e, true
}

// above is the folder of an environment whose interpreter is there.
func above(program string) string {
	folder := filepath.Dir(program)
	if name := strings.ToLower(filepath.Base(folder)); name == "bin" || name == "scripts" {
		return filepath.Dir(folder)
	}
	return folder
}

// virtual is a virtual environment, which has a pyvenv.cfg.
func virtual(prefix string) (e env, ok bool) {
	config := settingsIn(read(filepath.Join(prefix, "pyvenv.cfg")))
	if config["home"] == "" {
		return e, false
	}
	e.prefix = real(prefix)
	e.version = cmp.Or(config["version"], config["version_info"], versionAt(prefix, ""))
	e.sites = sitesOf(prefix, short(e.version))
	if strings.EqualFold(config["include-system-site-packages"], "true") {
		e.sites = append(e.sites, usersSites(short(e.version))...)
		e.sites = append(e.sites, sitesOf(above(filepath.Join(config["home"], "python")), short(e.version))...)
	}
	return e, true
}

// settingsIn are the lines KEY = VALUE of a text.
func settingsIn(text string) map[string]string {
	settings := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, "="); ok {
			settings[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		}
	}
	return settings
}

var (
	numbered = regexp.MustCompile(`^python(3\.\d+)`)
	library  = regexp.MustCompile(`^python3(\d+)\.dll$`)
)

// versionAt is the version of the Python whose program and folder are these, "" if that is
// none or not told by their names.
func versionAt(prefix, program string) string {
	if found := numbered.FindStringSubmatch(filepath.Base(program)); found != nil {
		return found[1]
	}
	var found []string
	for _, name := range namesIn(filepath.Join(prefix, "lib")) {
		if v := numbered.FindStringSubmatch(name); v != nil && isFile(filepath.Join(prefix, "lib", name, "os.py")) {
			found = append(found, v[1])
		}
	}
	for _, name := range namesIn(prefix) {
		if v := library.FindStringSubmatch(strings.ToLower(name)); v != nil {
			found = append(found, "3."+v[1])
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return ""
}

// short is a version without what follows its second number.
func short(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}

// sitesOf are the folders of packages of a prefix, those of Debian's Python too.
func sitesOf(prefix, version string) []string {
	python := "python" + version
	sites := []string{filepath.Join(prefix, "lib", python, "site-packages"), filepath.Join(prefix, "lib64", python, "site-packages"), filepath.Join(prefix, "Lib", "site-packages")}
	if prefix == "/usr" {
		sites = append(sites, filepath.Join("/usr/local/lib", python, "dist-packages"), "/usr/lib/python3/dist-packages")
	}
	return sites
}

// usersSites are where packages go that a user installs for all of his environments.
func usersSites(version string) []string {
	config, err := os.UserConfigDir()
	if err != nil {
		config = ""
	}
	sites := []string{home("~/.local/lib/python" + version + "/site-packages")}
	switch {
	case runtime.GOOS == "darwin":
		sites = append(sites, home("~/Library/Python/"+version+"/lib/python/site-packages"))
	case runtime.GOOS == "windows" && config != "":
		sites = append(sites, filepath.Join(config, "Python", "Python"+strings.ReplaceAll(version, ".", ""), "site-packages"))
	}
	return sites
}

var (
	installed  = regexp.MustCompile(`^(.+?)-([^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info$`)
	separators = regexp.MustCompile(`[-_.]+`)
)

// packages are those of an environment that have to do with quantized models.
func (e env) packages() []report.Package {
	versions := map[string]string{}
	for _, site := range e.sites {
		for _, name := range namesIn(site) {
			if found := installed.FindStringSubmatch(name); found != nil {
				key := strings.ToLower(separators.ReplaceAllString(found[1], "-"))
				versions[key] = cmp.Or(versions[key], found[2])
			}
		}
	}
	list := []report.Package{}
	for _, name := range app.Packages() {
		if version := versions[name]; version != "" {
			list = append(list, report.Package{Name: name, Version: version})
		}
	}
	return list
}

// namesIn are the names in a folder, none if it cannot be read.
func namesIn(folder string) (names []string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
