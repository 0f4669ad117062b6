/* doctor: see shmd.h. */

#include "buildinfo.h"

#include "client/block.h"
#include "client/client.h"

static size_t strings_size(const Shmd__DoctorReply *doctor) {
        size_t n = block_string_size(&doctor->broker) + block_string_size(&doctor->kept_by) +
                   block_string_size(&doctor->last_end);

        for (size_t i = 0; i < doctor->n_features; ++i)
                n += block_string_size(&doctor->features[i]->name) +
                     block_string_size(&doctor->features[i]->consequence);
        return n;
}

static void feature_decode(const Shmd__Feature *feature, Block *block, struct shmd_feature *ret) {
        ret->name = block_string(block, &feature->name);
        ret->have = feature->have;
        ret->consequence = block_string(block, &feature->consequence);
}

static int doctor_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__DoctorReply *doctor = (const Shmd__DoctorReply *)reply;
        struct shmd_doctor_result **ret = out;
        struct shmd_doctor_result *result;
        Block block;

        result = block_new(&block, sizeof(*result) + doctor->n_features * sizeof(*result->features),
                           strings_size(doctor));
        if (!result)
                return -ENOMEM;
        result->n_features = doctor->n_features;
        result->features = (struct shmd_feature *)(result + 1);
        for (size_t i = 0; i < doctor->n_features; ++i)
                feature_decode(doctor->features[i], &block, &result->features[i]);
        result->descriptors = doctor->descriptors;
        result->regions = doctor->regions;
        result->helper_replacements = doctor->helper_replacements;
        result->policy_generation = doctor->policy_generation;
        result->inotify_overflows = doctor->inotify_overflows;
        result->uid = doctor->uid;
        result->landlock = doctor->landlock;
        result->broker = block_string(&block, &doctor->broker);
        result->kept_by = block_string(&block, &doctor->kept_by);
        result->restarts = doctor->restarts;
        result->last_end = block_string(&block, &doctor->last_end);

        *ret = result;
        return 0;
}

static const Op op_doctor = { .kind = MESSAGE_DOCTOR, .decode = doctor_decode };

int shmd_doctor_start(shmd *client, uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Doctor doctor = SHMD__DOCTOR__INIT;

        return call_start(client, &op_doctor, &doctor.base, timeout_ns, callback, userdata, ret);
}

int shmd_doctor_finish(shmd_call *call, struct shmd_doctor_result **ret) {
        *ret = NULL;
        return call_finish(call, &op_doctor, ret);
}

int shmd_doctor(shmd *client, struct shmd_doctor_result **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client, shmd_doctor_start(client, timeout_ns, call_waited, &wait, &wait.call));
}

struct shmd_doctor_result *shmd_doctor_free(struct shmd_doctor_result *result) {
        free(result);
        return NULL;
}
