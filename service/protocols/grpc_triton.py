"""Messages of Triton's that the Open Inference Protocol does not have: statistics, configuration.

As in `grpc_messages`, and in the same package. Of a configuration there is what a served model has.

Source: Triton, grpc_service.proto and model_config.proto.
"""

from __future__ import annotations

MESSAGES = {
    "StatisticDuration": "count:uint64=1 ns:uint64=2",
    "InferStatistics": """success:StatisticDuration=1 fail:StatisticDuration=2
        queue:StatisticDuration=3 compute_input:StatisticDuration=4
        compute_infer:StatisticDuration=5 compute_output:StatisticDuration=6
        cache_hit:StatisticDuration=7 cache_miss:StatisticDuration=8""",
    "InferBatchStatistics": """batch_size:uint64=1 compute_input:StatisticDuration=2
        compute_infer:StatisticDuration=3 compute_output:StatisticDuration=4""",
    "ModelStatistics": """name:string=1 version:string=2 last_inference:uint64=3
        inference_count:uint64=4 execution_count:uint64=5 inference_stats:InferStatistics=6
        batch_stats:InferBatchStatistics*=7""",
    "ModelStatisticsRequest": "name:string=1 version:string=2",
    "ModelStatisticsResponse": "model_stats:ModelStatistics*=1",
    "DataType": """enum TYPE_INVALID=0 TYPE_BOOL=1 TYPE_UINT8=2 TYPE_UINT16=3 TYPE_UINT32=4
        TYPE_UINT64=5 TYPE_INT8=6 TYPE_INT16=7 TYPE_INT32=8 TYPE_INT64=9 TYPE_FP16=10
        TYPE_FP32=11 TYPE_FP64=12 TYPE_STRING=13 TYPE_BF16=14""",
    "ModelInput": "name:string=1 data_type:DataType=2 format:ModelInput.Format=3 dims:int64*=4",
    "ModelInput.Format": "enum FORMAT_NONE=0 FORMAT_NHWC=1 FORMAT_NCHW=2",
    "ModelOutput": "name:string=1 data_type:DataType=2 dims:int64*=3",
    "ModelVersionPolicy": """latest:ModelVersionPolicy.Latest=1 all:ModelVersionPolicy.All=2
        specific:ModelVersionPolicy.Specific=3""",
    "ModelVersionPolicy.Latest": "num_versions:uint32=1",
    "ModelVersionPolicy.All": "",
    "ModelVersionPolicy.Specific": "versions:int64*=1",
    "ModelInstanceGroup": """name:string=1 count:int32=2 gpus:int32*=3
        kind:ModelInstanceGroup.Kind=4""",
    "ModelInstanceGroup.Kind": "enum KIND_AUTO=0 KIND_GPU=1 KIND_CPU=2 KIND_MODEL=3",
    "ModelDynamicBatching": """preferred_batch_size:int32*=1
        max_queue_delay_microseconds:uint64=2""",
    "ModelConfig": """name:string=1 platform:string=2 version_policy:ModelVersionPolicy=3
        max_batch_size:int32=4 input:ModelInput*=5 output:ModelOutput*=6
        instance_group:ModelInstanceGroup*=7 default_model_filename:string=8
        dynamic_batching:ModelDynamicBatching=11 backend:string=17
        response_cache:ModelResponseCache=24""",
    "ModelResponseCache": "enable:bool=1",
    "ModelConfigRequest": "name:string=1 version:string=2",
    "ModelConfigResponse": "config:ModelConfig=1",
}
