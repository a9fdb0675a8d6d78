{
  "targets": [
    {
      "target_name": "iommufd",
      "sources": [
        "native/addon.cc",
        "native/arguments.cc",
        "native/calls.cc",
        "native/syscalls.cc",
        "native/memory.cc",
        "native/mapping.cc",
        "native/watch.cc",
        "native/pump.cc",
        "native/pump-records.cc",
        "native/pump-calls.cc"
      ],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=8", "NAPI_DISABLE_CPP_EXCEPTIONS", "_FILE_OFFSET_BITS=64"],
      # What is copied here is short: vector instructions win nothing, and an emulated processor takes long for each.
      "cflags": ["-Wall", "-Wextra", "-fvisibility=hidden", "-fno-tree-vectorize"],
      "cflags_cc": ["-std=c++17"]
    }
  ]
}
