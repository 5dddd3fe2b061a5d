package main

import (
	"fmt"
	"strings"
)

// step is how many values a turn of a kernel's loop takes.
const step = 16

// assembly is a file that is being written. Vector and general registers are handed out
// in order; each function has all of them.
type assembly struct {
	text, stubs  strings.Builder
	made         []string // names of the functions written so far
	params       map[string]param
	vectors, all int
}

// A param is the place of an argument.
type param struct {
	offset, size int
}

// form is how values are stored in memory.
type form struct {
	name  string
	size  int    // bytes of a value
	lanes string // lanes of a vector, in the assembler's notation
}

var (
	bf16 = form{"BF16", 2, "H8"}
	f32  = form{"F32", 4, "S4"}
)

// vec is a vector register.
type vec int

func (v vec) as(lanes string) string { return fmt.Sprintf("V%d.%s", int(v), lanes) }
func (v vec) b() string              { return v.as("B16") }
func (v vec) h() string              { return v.as("H8") }
func (v vec) s() string              { return v.as("S4") }
func (v vec) d() string              { return v.as("D2") }

// list returns an assembler list of consecutive registers, with lanes of that kind.
func list(v []vec, lanes string) string {
	var names []string
	for _, r := range v {
		names = append(names, r.as(lanes))
	}
	return "[" + strings.Join(names, ", ") + "]"
}

func (a *assembly) vec() vec {
	if a.vectors == 32 {
		panic("no vector register is left")
	}
	a.vectors++
	return vec(a.vectors - 1)
}

// vecs returns n consecutive registers.
func (a *assembly) vecs(n int) []vec {
	r := make([]vec, n)
	for i := range r {
		r[i] = a.vec()
	}
	return r
}

// reg returns a general register. Those from R16 on belong to the system and to Go; R15
// is for short-lived values.
func (a *assembly) reg() string {
	if a.all == 15 {
		panic("no register is left")
	}
	a.all++
	return fmt.Sprint("R", a.all-1)
}

// op writes an instruction.
func (a *assembly) op(name string, operands ...string) {
	a.text.WriteString(strings.TrimRight("\t"+name+" "+strings.Join(operands, ", "), " ") + "\n")
}

// word writes an instruction that Go's assembler does not know, by its code. Operands
// are in Go's order, the result last.
func (a *assembly) word(name string, code uint32, operands ...string) {
	for i, o := range operands {
		var register uint32
		if _, err := fmt.Sscanf(o, "V%d.", &register); err != nil {
			panic(err)
		}
		code |= register << [...]int{0, 5, 16}[len(operands)-1-i]
	}
	fmt.Fprintf(&a.text, "\tWORD $%#08x // %s %s\n", code, name, strings.Join(operands, ", "))
}

// shift shifts lanes to the left by the numbers in by, or to the right if these are
// negative.
func (a *assembly) shift(lanes string, by, x, to vec) {
	code := map[string]uint32{"H8": 0x6E604400, "S4": 0x6EA04400, "D2": 0x6EE04400}[lanes]
	a.word("USHL", code, by.as(lanes), x.as(lanes), to.as(lanes))
}

// less sets the bits of lanes where x < y, in single precision.
func (a *assembly) less(x, y, to vec) { a.word("FCMGT", 0x6EA0E400, x.s(), y.s(), to.s()) }

// quotient divides x by y.
func (a *assembly) quotient(x, y, to vec) { a.word("FDIV", 0x6E20FC00, y.s(), x.s(), to.s()) }

// function writes a function with parameters like "dst, codes *byte, n int". result is
// the type of a result called ret, a list like "(a, b uint32)", or empty.
func (a *assembly) function(name, params, result, doc string, body func()) {
	a.vectors, a.all, a.params = 0, 0, map[string]param{}
	a.made = append(a.made, name)
	end := a.place(params, 0)
	if result != "" {
		named := "ret " + result
		if list, ok := strings.CutPrefix(result, "("); ok {
			named = strings.TrimSuffix(list, ")")
		}
		end, result = a.place(named, (end+7)&^7), " "+result
	}
	fmt.Fprintf(&a.stubs, "\n// %sNEON %s\n//\n//go:noescape\nfunc %sNEON(%s)%s\n", name, doc, name, params, result)
	fmt.Fprintf(&a.text, "\n// func %sNEON(%s)%s\nTEXT ·%sNEON(SB), NOSPLIT, $0-%d\n", name, params, result, name, end)
	body()
	a.op("RET")
}

// place assigns places to arguments or results from offset end on, and returns where
// they end.
func (a *assembly) place(params string, end int) int {
	var wait []string
	for _, p := range strings.Split(params, ", ") {
		id, kind, typed := strings.Cut(p, " ")
		if wait = append(wait, id); !typed {
			continue
		}
		size, known := map[string]int{"float32": 4, "uint32": 4, "bool": 1}[kind]
		if !known {
			size = 8
		}
		for _, w := range wait {
			end = (end + size - 1) &^ (size - 1)
			a.params[w] = param{end, size}
			end += size
		}
		wait = nil
	}
	return end
}

// at returns the place of an argument or a result.
func (a *assembly) at(name string) string {
	p, known := a.params[name]
	if !known {
		panic("no parameter " + name)
	}
	return fmt.Sprintf("%s+%d(FP)", name, p.offset)
}

// param loads an argument.
func (a *assembly) param(name string) string {
	r := a.reg()
	if a.params[name].size == 4 {
		a.op("MOVWU", a.at(name), r)
	} else {
		a.op("MOVD", a.at(name), r)
	}
	return r
}

// row loads the vector of 16 bytes at an offset from a pointer.
func (a *assembly) row(from string, offset int) vec {
	v := a.vec()
	a.op("ADD", fmt.Sprintf("$%d", offset), from, "R15")
	a.op("VLD1", "(R15)", list([]vec{v}, "B16"))
	return v
}

// repeated fills lanes with the number at an offset from a pointer.
func (a *assembly) repeated(from string, offset int, lanes string) vec {
	v := a.vec()
	a.op("ADD", fmt.Sprintf("$%d", offset), from, "R15")
	a.op("VLD1R", "(R15)", list([]vec{v}, lanes))
	return v
}

// negative is repeated with the negated number.
func (a *assembly) negative(from string, offset int, lanes string) vec {
	v := a.repeated(from, offset, lanes)
	a.op("VEOR", "V31.B16", "V31.B16", "V31.B16") // not handed out yet
	a.op("VSUB", v.as(lanes), "V31."+lanes, v.as(lanes))
	return v
}

// everywhere fills the lanes of a vector with an argument.
func (a *assembly) everywhere(name string) vec {
	v, r := a.vec(), a.param(name)
	a.op("VDUP", r, v.as(map[int]string{4: "S4", 8: "D2"}[a.params[name].size]))
	a.all-- // the register can be handed out again
	return v
}

// constant fills a vector with a value.
func (a *assembly) constant(bits uint64, lanes string) vec {
	v := a.vec()
	a.op("MOVD", fmt.Sprintf("$%#x", bits), "R15")
	a.op("VDUP", "R15", v.as(lanes))
	return v
}

// loop runs body n times, which may be 0. It overwrites n.
func (a *assembly) loop(name, n string, body func()) {
	a.op("CBZ", n, name+"Done")
	before := a.text.String()
	a.text.Reset()
	body()
	a.op("SUB", "$1", n)
	a.op("CBNZ", n, name)
	turn := a.text.String()
	a.text.Reset()
	fmt.Fprintf(&a.text, "%s\n%s:", before, name)
	if !strings.Contains(turn, ":") {
		fmt.Fprintf(&a.text, " // %d instructions", strings.Count(turn, "\n"))
	}
	fmt.Fprintf(&a.text, "\n%s\n%sDone:\n", turn, name)
}

// copied returns a register with the same content.
func (a *assembly) copied(r string) string {
	c := a.reg()
	a.op("MOVD", r, c)
	return c
}

// load reads consecutive values into consecutive vectors, and moves the pointer on.
func (a *assembly) load(v []vec, lanes, from string) {
	a.op("VLD1.P", fmt.Sprintf("%d(%s)", 16*len(v), from), list(v, lanes))
}

// store is the inverse of load.
func (a *assembly) store(v []vec, lanes, to string) {
	a.op("VST1.P", list(v, lanes), fmt.Sprintf("%d(%s)", 16*len(v), to))
}

const head = "// Code generated by command: go run ./neon -out ../kernels_arm64.s -stubs ../stubs_arm64.go. DO NOT EDIT.\n\n//go:build !purego\n\n"

func (a *assembly) source() string { return head + "#include \"textflag.h\"\n" + a.text.String() }

func (a *assembly) declarations() string { return head + "package kernel\n" + a.stubs.String() }
