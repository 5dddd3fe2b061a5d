package main

import (
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/codec"
)

// row is one line of a table.
type row struct {
	name   string
	reach  float64 // what the ratio, or the time in ms, is to stay below; 0 for none
	op     string  // a command of tensorpress, or a peer
	flags  string  // of op; for dequantize and verify, of the quantize before it
	source string  // see bench.source
	late   string  // flags that come after
	few    bool    // slow: at most three runs
}

// section is a table.
type section struct {
	title string
	ms    bool // times, not ratios: no cp
	rows  []row
}

// format is a way to store weights.
type format struct {
	name  string
	reach float64
	flags string
}

var formats = []format{
	{"int8 rows, comfy", 0.6, "--layout comfy --dtype int8_tensorwise"},
	{"int8 rows, sdnq", 0.6, "--layout sdnq --dtype int8"},
	{"float8_e4m3fn rows, comfy", 0.7, "--layout comfy --dtype float8_e4m3fn_rowwise"},
	{"float8_e4m3fn rows, sdnq", 0.7, "--layout sdnq --dtype float8_e4m3fn"},
	{"uint4 g64, sdnq", 0.6, "--layout sdnq --dtype uint4 --group-size 64"},
	{"float8_e4m3fn tensor, comfy", 0.9, "--layout comfy --dtype float8_e4m3fn"},
	{"int8 tensor, comfy", 0.9, "--layout comfy --dtype int8_tensorwise --scale tensor"},
	{"int8 tensor, sdnq", 0.9, "--layout sdnq --dtype int8 --group-size -2"},
	{"nvfp4, comfy", 0.9, "--layout comfy --dtype nvfp4"},
	{"mxfp8, comfy", 0.9, "--layout comfy --dtype mxfp8"},
	{"int2, sdnq", 0.9, "--layout sdnq --dtype int2"},
	{"uint3, sdnq", 0.9, "--layout sdnq --dtype uint3"},
	{"int4, sdnq", 0.9, "--layout sdnq --dtype int4"},
	{"uint5, sdnq", 0.9, "--layout sdnq --dtype uint5"},
	{"int6, sdnq", 0.9, "--layout sdnq --dtype int6"},
	{"uint7, sdnq", 0.9, "--layout sdnq --dtype uint7"},
	{"float4_e2m1fn, sdnq", 1.3, "--layout sdnq --dtype float4_e2m1fn"},
	{"float5_e2m2fn, sdnq", 1.3, "--layout sdnq --dtype float5_e2m2fn"},
	{"float6_e3m2fn, sdnq", 1.3, "--layout sdnq --dtype float6_e3m2fn"},
	{"float7_e3m3fn, sdnq", 1.3, "--layout sdnq --dtype float7_e3m3fn"},
	{"int8 Hadamard 256, sdnq", 2, "--layout sdnq --dtype int8 --hadamard"},
	{"int8 convrot 256, comfy", 1, "--layout comfy --dtype int8_tensorwise --convrot"},
	{"convrot_w4a4, comfy", 1, "--layout comfy --dtype convrot_w4a4"},
	{"uint4 codebook, sdnq", 10, "--layout sdnq --dtype uint4 --codebook"},
}

// others are formats with no reach of their own: some of SDNQ's, and all of
// ComfyUI's that are not above.
var others = unnamed([]format{
	{"uint4 svd32, sdnq", 0, "--layout sdnq --dtype uint4 --svd-rank 32"},
	{"int8 matmul, sdnq", 0, "--layout sdnq --dtype int8 --quantized-matmul"},
	{"int12, sdnq", 0, "--layout sdnq --dtype int12"},
	{"awq_w4a16, comfy", 0, "--layout comfy --dtype awq_w4a16"},
	{"asym_w4a8_int8, comfy", 4, "--layout comfy --dtype asym_w4a8_int8"},
})

// unnamed adds the formats that are written and named nowhere.
func unnamed(list []format) []format {
	for _, f := range codec.Formats() {
		flags := "--layout comfy --dtype " + f.Name
		isIt := func(one format) bool { return strings.HasPrefix(one.flags+" ", flags+" ") }
		if f != codec.SDNQ() && f.ReadOnly == "" && !slices.ContainsFunc(slices.Concat(formats, list), isIt) {
			list = append(list, format{f.Name + ", comfy", 0, flags})
		}
	}
	return list
}

func (f format) row(op string, reach float64) row {
	flags := f.flags + " --preset none"
	return row{name: op + " " + f.name, reach: reach, op: op, flags: flags, few: reach >= 10}
}

var sections = []section{
	{title: "Quantize", rows: rowsOf(formats, "quantize", 0)},
	{title: "Dequantize", rows: rowsOf(formats, "dequantize", 1.2)},
	{title: "Verify", rows: rowsOf(formats, "verify", 1.2)},
	{title: "Other formats", rows: slices.Concat(rowsOf(others, "quantize", 0), rowsOf(others, "dequantize", 0), rowsOf(others, "verify", 0))},
	{title: "One thread", rows: with("one thread", "--threads 1", 2)},
	{title: "--memory 64MiB", rows: with("64 MiB", "--memory 64MiB", 1.5)},
	{title: "SVD rank 32", rows: []row{
		{name: "svd32 uint4, sdnq", op: "quantize", flags: svd, few: true},
		{name: "svd32 uint4, sdnq, 64 MiB", op: "quantize", flags: svd, late: "--memory 64MiB", few: true},
		{name: "svd32 uint4, 3072 × 12288", op: "quantize", flags: svd, source: "wide", few: true},
		{name: "svd32 uint4, 28672 × 8192", op: "quantize", flags: svd, source: "tall", few: true},
	}},
	{title: "SVD rank 32, as many values in layers of one size", rows: []row{
		{name: "svd32 layers of 128", op: "quantize", flags: svd + smallLayers, source: "side128", few: true},
		{name: "svd32 layers of 256", op: "quantize", flags: svd + smallLayers, source: "side256", few: true},
		{name: "svd32 layers of 512", op: "quantize", flags: svd + smallLayers, source: "side512", few: true},
		{name: "svd32 layers of 1024", op: "quantize", flags: svd + smallLayers, source: "side1024", few: true},
		{name: "svd32 layers of 2048", op: "quantize", flags: svd + smallLayers, source: "side2048", few: true},
	}},
	{title: "Tiny tensors", rows: []row{
		{name: "large: 400 tensors, comfy", op: "quantize", flags: formats[0].flags + " --preset none", source: "large"},
		{name: "tiny: 100,000 tensors, comfy", op: "quantize", flags: formats[0].flags + " --preset none", source: "tiny"},
		{name: "large: 400 tensors, sdnq", op: "quantize", flags: tinyUint4, source: "large"},
		{name: "tiny: 100,000 tensors, sdnq", op: "quantize", flags: tinyUint4, source: "tiny"},
	}},
	{title: "Size", rows: []row{
		{name: "linear 1 GiB", op: "quantize", flags: formats[0].flags + " --preset none", source: "1GiB"},
		{name: "linear 2 GiB", op: "quantize", flags: formats[0].flags + " --preset none", source: "2GiB"},
		{name: "linear 4 GiB", op: "quantize", flags: formats[0].flags + " --preset none", source: "4GiB"},
		{name: "linear 8 GiB", op: "quantize", flags: formats[0].flags + " --preset none", source: "8GiB"},
	}},
	{title: "Start", ms: true, rows: []row{
		{name: "start: --help", reach: 8, op: "--help"},
		{name: "start: inspect 1,000 shards", reach: 40, op: "inspect", source: "shards"},
		{name: "start: plan 10,000 tensors, comfy", reach: 100, op: "plan", flags: "--layout comfy", source: "many"},
		{name: "start: plan 10,000 tensors, sdnq", reach: 100, op: "plan", flags: "--layout sdnq", source: "many"},
	}},
	{title: "Peers", rows: peerRows},
}

const (
	svd         = "--layout sdnq --dtype uint4 --svd-rank 32 --preset none"
	smallLayers = " --min-numel 1"
	tinyUint4   = "--layout sdnq --dtype uint4 --group-size 64 --preset none --min-numel 1"
)

var peerRows = []row{
	{name: "peer sdnq int8", op: "sdnq", flags: `{"weights_dtype":"int8"}`, few: true},
	{name: "peer sdnq uint4", op: "sdnq", flags: `{"weights_dtype":"uint4","group_size":64}`, few: true},
	{name: "peer sdnq int8 Hadamard", op: "sdnq", flags: `{"weights_dtype":"int8","use_hadamard":true}`, few: true},
	{name: "peer sdnq uint4 svd32", op: "sdnq", flags: `{"weights_dtype":"uint4","use_svd":true,"svd_rank":32}`, few: true},
	{name: "peer sdnq uint4 codebook", op: "sdnq", flags: `{"weights_dtype":"uint4","use_codebook":true}`, few: true},
	{name: "peer ctq fp8", op: "convert_to_quant", flags: "", few: true},
	{name: "peer ctq int8 rows", op: "convert_to_quant", flags: "--int8 --scaling_mode row", few: true},
	{name: "peer ctq convrot", op: "convert_to_quant", flags: "--int8 --scaling_mode row --convrot", few: true},
	{name: "peer ctq nvfp4", op: "convert_to_quant", flags: "--nvfp4", few: true},
	{name: "peer ctq mxfp8", op: "convert_to_quant", flags: "--mxfp8", few: true},
}

// rowsOf has a row for every format, with one reach or the format's own.
func rowsOf(formats []format, op string, reach float64) []row {
	var rows []row
	for _, f := range formats {
		if reach == 0 {
			rows = append(rows, f.row(op, f.reach))
		} else {
			rows = append(rows, f.row(op, reach))
		}
	}
	return rows
}

// with has the rows of quantize with further flags and their reach times slack.
func with(name, late string, slack float64) []row {
	var rows []row
	for _, f := range formats {
		r := f.row("quantize", slack*f.reach)
		r.name, r.late = strings.Replace(r.name, "quantize", name, 1), late
		r.few = f.reach >= 2
		rows = append(rows, r)
	}
	return rows
}
