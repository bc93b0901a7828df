# What the modules share: types of values in config.toml and agent.toml, and what is wrong
# with settings, told while Nix evaluates. keys.json has every key and its kind; a test of the
# program holds it.
{ lib }:

let
  inherit (lib) concatLists concatMap imap0 mapAttrsToList;
  keys = lib.importJSON ./keys.json;

  isDuration = value: builtins.isString value
    && builtins.match "([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+|[0-9]+(\\.[0-9]+)?d" value != null;
  isSize = value: builtins.isInt value && value >= 0
    || builtins.isString value && builtins.match "[0-9]+ ?(B|[KMGT]iB)?" value != null;

  # nearest is a hint at the key that somebody may have meant.
  nearest = name: known:
    let near = lib.filter (lib.strings.levenshteinAtMost 2 name) (lib.attrNames known);
    in lib.optionalString (near != [ ]) ": did you mean ${lib.head near}?";

  # problems of one value, where being its name towards people.
  problems = where: kind: value:
    if value == null then [ ]
    else if lib.isAttrs kind then
      if !lib.isAttrs value then [ "${where} is a section: write it as ${where} = { … }" ]
      else concatLists (mapAttrsToList
        (name: v:
          if kind ? ${name} then problems "${where}.${name}" kind.${name} v
          else [ "${where}.${name} is not a key that narwharf knows${nearest name kind}" ])
        value)
    else if lib.isList kind then
      if !lib.isList value then [ "${where} is a list" ]
      else concatLists (imap0 (i: problems "${where}[${toString i}]" (lib.head kind)) value)
    else if kind == "duration" && builtins.isInt value then [ "${where}: ${toString value} has no unit: write \"${toString value}s\"" ]
    else if kind == "duration" && !isDuration value then [ "${where}: ${lib.generators.toPretty { } value} is not a duration like \"90s\", \"1h30m\" or \"7d\"" ]
    else if kind == "size" && !isSize value then [ "${where}: ${lib.generators.toPretty { } value} is not a size like \"64GiB\", nor a number of bytes" ]
    else if kind == "text" && !builtins.isString value then [ "${where}: ${lib.generators.toPretty { } value} is not a text" ]
    else if kind == "integer" && !builtins.isInt value then [ "${where}: ${lib.generators.toPretty { } value} is not a whole number" ]
    else if kind == "bool" && !builtins.isBool value then [ "${where}: ${lib.generators.toPretty { } value} is neither true nor false" ]
    else [ ];

  # texts are all texts in a value, with their places.
  texts = where: value:
    if builtins.isString value then [ { inherit where value; } ]
    else if lib.isAttrs value then concatLists (mapAttrsToList (name: texts "${where}.${name}") value)
    else if lib.isList value then concatLists (imap0 (i: texts "${where}[${toString i}]") value)
    else [ ];

  # secrets are the places of tokens and secret keys that stand in a text.
  secrets = where: value: concatMap
    ({ where, value }:
      lib.optional (builtins.match ".*nwt_[0-9a-z]{10}_[0-9a-z]+.*" value != null)
        "${where} has a token in it, and the Nix store is for all to read: put it into a file, and name that"
      ++ lib.optional (builtins.match "[^:]+:[A-Za-z0-9+/]{86}==" value != null)
        "${where} is a secret key, and the Nix store is for all to read: put it into a file, and name that")
    (texts where value);
in
rec {
  types = {
    duration = lib.mkOptionType {
      name = "duration";
      description = ''duration like "90s", "1h30m" or "7d"'';
      descriptionClass = "noun";
      check = isDuration;
      merge = lib.mergeEqualOption;
    };
    size = lib.mkOptionType {
      name = "size";
      description = ''size like "64GiB", or a number of bytes'';
      descriptionClass = "noun";
      check = isSize;
      merge = lib.mergeEqualOption;
    };
    # A file that only root has at run time. A path literal would be copied to the store.
    secretFile = lib.mkOptionType {
      name = "secretFile";
      description = ''absolute path outside of the Nix store, written as a text ("/run/secrets/…")'';
      descriptionClass = "noun";
      check = value: builtins.isString value && lib.hasPrefix "/" value && !lib.hasPrefix builtins.storeDir value;
      merge = lib.mergeEqualOption;
    };
  };

  # withoutNull are settings as they go to the file: without what is left to the program.
  withoutNull = settings: lib.filterAttrs (_: value: value != null && value != { })
    (lib.mapAttrs (_: value: if lib.isAttrs value then withoutNull value else value) settings);

  # assertions that settings have to hold; file is "server" or "agent".
  assertions = file: where: settings: map
    (message: { assertion = false; inherit message; })
    (problems where keys.${file} settings ++ secrets where settings);

  # secretTexts are the same for text that is not of settings.
  secretTexts = where: value: map (message: { assertion = false; inherit message; }) (secrets where value);

  # configFile is the file with settings, which the program has checked.
  configFile = { pkgs, package, file, name, settings, check }:
    let toml = (pkgs.formats.toml { }).generate name (withoutNull settings);
    in
    # A program for another machine cannot run here.
    if !check || !(pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform) then toml
    else pkgs.runCommand name { inherit toml; preferLocalBuild = true; } ''
      ${lib.getExe' package "narwharf"} check-config ${file} "$toml"
      cp "$toml" $out
    '';
}
