# Store paths to test with, made without nixpkgs: the builder is the host's /bin/sh with the
# host's coreutils, hence `sandbox = false`. Every derivation is deterministic, so that two Nix
# versions make the same bytes of the same path (but for self-referential content-addressed ones,
# whose hash is computed differently by 2.8, 2.17 and 2.35).
#
# salt   another salt is another set of store paths with the same shape
# sizeMB size of the two big paths
# files  number of files in `many`
{ salt ? "0", sizeMB ? 500, files ? 20000 }:
let
  # make NAME ATTRS SCRIPT: one derivation; ATTRS become variables of the script.
  make = name: attrs: script: derivation ({
    inherit name salt;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-euc" script ];
    PATH = "/usr/bin:/bin";
    LC_ALL = "C.UTF-8";
  } // attrs);

  contentAddressed = {
    __contentAddressed = true;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
  };

  noise = name: sizeMB: make name { inherit sizeMB; } ''
    mkdir $out
    openssl enc -aes-128-ctr -md sha256 -nosalt -pass "pass:$salt" -in /dev/zero 2> /dev/null |
      head -c $((sizeMB * 1048576)) > $out/blob
  '';

  leaf = n: make "leaf-${toString n}" { inherit n; } ''echo "leaf $n $salt" > $out'';
in
rec {
  # References: a needs b needs c. c's build leaves a log.
  c = make "ref-c" { } ''
    echo "building ref-c with salt $salt"
    mkdir $out
    echo "c $salt" > $out/c
  '';
  b = make "ref-b" { inherit c; } ''
    mkdir $out
    echo "made from $c" > $out/b
    ln -s $c/c $out/c
  '';
  a = make "ref-a" { inherit b; } ''
    mkdir -p $out/bin
    printf '#!/bin/sh\nexec cat %s/b\n' $b > $out/bin/a
    chmod +x $out/bin/a
  '';
  selfref = make "self-ref" { } ''
    mkdir $out
    echo "I am $out" > $out/self
  '';

  # Sixty paths below one: many requests at once.
  wide = make "wide" { leaves = builtins.genList leaf 60; } ''
    mkdir $out
    for l in $leaves; do echo $l; done > $out/leaves
  '';

  # Several outputs that refer to each other.
  multi = make "multi" { outputs = [ "out" "dev" "doc" ]; } ''
    mkdir -p $out/lib $dev/include $doc
    echo "multi $salt" > $out/lib/multi
    echo "#define MULTI \"$out/lib/multi\"" > $dev/include/multi.h
    echo "see $dev" > $doc/manual
  '';

  # Separate debug info under a build id, as index-debug-info looks for it.
  dbg = make "with-debug" { outputs = [ "out" "debug" ]; } ''
    ids=$debug/lib/debug/.build-id
    mkdir -p $out $ids/ab $ids/01
    echo "program $salt" > $out/program
    echo "symbols $salt" > $ids/ab/cdef0123456789abcdef0123456789abcdef01.debug
    echo "more symbols $salt" > $ids/01/23456789abcdef0123456789abcdef01234567.debug
  '';

  # Fixed output, flat.
  fod = make "fixed-output" {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "fixed ${salt}";
  } ''printf 'fixed %s' "$salt" > $out'';

  # Content-addressed derivations: their outputs come with realisations.
  caC = make "ca-c" contentAddressed ''
    mkdir $out
    echo "ca-c $salt" > $out/c
  '';
  caB = make "ca-b" (contentAddressed // { inherit caC; }) ''
    mkdir $out
    echo "$caC" > $out/needs
    echo "$out" > $out/self
  '';
  caPlain = make "ca-plain" (contentAddressed // { inherit caC; }) ''
    mkdir $out
    echo "$caC" > $out/needs
  '';
  caMulti = make "ca-multi" (contentAddressed // { outputs = [ "out" "dev" ]; }) ''
    mkdir $out $dev
    echo "out $salt" > $out/o
    echo "$out" > $dev/d
  '';
  caUser = make "ca-user" { inherit caB; } ''
    mkdir $out
    echo "$caB" > $out/needs
  '';

  # A tree of everything that is legal and odd.
  zoo = make "zoo" { } ''
    mkdir -p $out/bin $out/empty $out/names "$out/two  spaces" $out/1/2/3/4/5/6/7/8/9/10/11/12
    : > $out/empty-file
    printf 'no newline at the end' > $out/1/2/3/4/5/6/7/8/9/10/11/12/leaf
    printf '#!/bin/sh\necho run\n' > $out/bin/run
    chmod 755 $out/bin/run
    ln -s run $out/bin/relative
    ln -s ../.. $out/bin/up
    ln -s $out/bin/run $out/absolute
    ln -s /nonexistent/place $out/dangling
    for n in 'grüße' '日本語' 'smile-😀' "nfd-e$(printf '\314\201')" 'double"quote' "single'quote" \
      'back\slash' 'dollar$sign' 'a&b<c>' '100%25' 'tab	tab' '-dash' '#hash' '?query=1' 'semi;colon' \
      'UPPER' 'upper' '...' ' leading' 'trailing '; do
      echo "$n" > "$out/names/$n"
    done
    printf 'newline' > "$out/names/$(printf 'new\nline')"
    printf 'long' > "$out/$(printf 'x%.0s' $(seq 250))"
    printf '\000\001\177\200\377' > $out/bytes
    for n in 0 1 7 8 9 15 16; do head -c $n /dev/zero > $out/size-$n; done
  '';
  # File names need not be UTF-8 (and then have no faithful JSON listing).
  latin = make "latin-names" { } ''
    mkdir $out
    echo "$salt" > "$out/$(printf 'latin-\344-1')"
    echo "$salt" > "$out/$(printf 'latin-\366-2')"
  '';
  # A NAR whose root is not a directory.
  singleFile = make "single-file" { } ''printf 'single %s' "$salt" > $out'';
  singleExe = make "single-exe" { } ''printf '#!/bin/sh\n# %s\n' "$salt" > $out; chmod +x $out'';
  singleLink = make "single-link" { } ''ln -s "/nonexistent/$salt" $out'';

  # Size and number.
  many = make "many-files" { inherit files; } ''
    mkdir $out
    cd $out
    i=0
    while [ $i -lt $files ]; do
      d=$((i / 200))
      [ $((i % 200)) -ne 0 ] || mkdir $d
      echo "file $i $salt" > $d/$i
      i=$((i + 1))
    done
  '';
  random = noise "big-random" sizeMB;
  medium = noise "medium-random" 64;
  # Text and holes, which take no room on the disk.
  compressible = make "big-compressible" { inherit sizeMB; } ''
    mkdir $out
    i=0
    while [ $i -lt $sizeMB ]; do
      yes "the quick brown fox $i $salt" | head -c 8192 | dd of=$out/text bs=1048576 seek=$i conv=notrunc 2> /dev/null
      i=$((i + 1))
    done
    truncate -s ''${sizeMB}M $out/text
  '';
}
